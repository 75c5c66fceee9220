"""`sr3-evaluate` on real 8-bit files of two sizes, as a user calls it."""

import json

import numpy as np
import PIL.Image
import pytest
import scipy.linalg
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr3_jax.evaluation import command as evaluation_command
from sr3_jax.evaluation import folder_run
from sr3_jax.evaluation.records import Records
from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.images import image_files
from sr3_jax.images import pixels as images_pixels
from sr3_jax.metrics import classifier, feature_nets, net_weights
from sr3_jax.reports import data as reports_data
from tests.support import feature_networks, image_folders
from tests.support.image_folders import NAMES, SIZES, arguments, load

folders, network = image_folders.folders, image_folders.network
tiny_networks = image_folders.tiny_networks


@pytest.fixture(scope='module')
def full(folders, network) -> list[str]:
  inputs, labels = f'--inputs={folders / "small"}', f'--labels={folders / "labels.txt"}'
  more = (inputs, f'--classifier={network}', labels, '--border=2', '--num_images=3')
  return arguments(folders, 'report', *more)


@pytest.fixture(scope='module')
def report(folders, full) -> reports_data.Report:
  """Everything there is, once."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(feature_nets, 'load', load)
    assert evaluation_command.main(full) == 0
  return reports_data.load(folders / 'report')


def pixels(folders, method: str) -> list[np.ndarray]:
  """8-bit images of a method, by Pillow; the baselines are made from the inputs."""
  found = []
  for name, (height, width) in zip(NAMES, SIZES, strict=True):
    if method in ('bicubic', 'lanczos'):
      small = np.asarray(PIL.Image.open(folders / 'small' / f'{name}.png'))
      image = resized(small, height, width, method.upper())
      found.append(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    else:
      (path,) = (folders / method).glob(f'{name}.*')
      found.append(np.asarray(PIL.Image.open(path)))
  return found


def resized(image: np.ndarray, height: int, width: int, kernel='BICUBIC') -> np.ndarray:
  """Pillow on floating point: [H, W, 3] in [0, 255]."""
  planes = [PIL.Image.fromarray(np.float32(image[..., c])) for c in range(3)]
  method = PIL.Image.Resampling[kernel]
  return np.stack([np.asarray(p.resize((width, height), method)) for p in planes], -1)


METHODS = {'bicubic': 'bicubic', 'lanczos': 'lanczos', 'mine': 'mine'}
METHODS |= {'other one': 'theirs'}


@pytest.mark.parametrize('method', METHODS)
def test_numbers_are_those_of_the_files(folders, report, method):
  """scikit-image's PSNR and SSIM, Pillow's downsampling, NumPy's networks."""
  sums = dict.fromkeys(('psnr', 'ssim', 'consistency', 'colour_drift', 'lpips_vgg'), 0)
  places = pixels(folders, METHODS[method]), pixels(folders, 'truth')
  small = pixels(folders, 'small')
  for image, truth, low in zip(*places, small, strict=True):
    inside = image[2:-2, 2:-2], truth[2:-2, 2:-2]  # --border=2
    sums['psnr'] += peak_signal_noise_ratio(*inside)
    sums['ssim'] += structural_similarity(
      *inside,
      channel_axis=-1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
    )
    error = (np.clip(resized(image, *low.shape[:2]), 0, 255) - low) / 255
    sums['consistency'] += 1e5 * np.mean(error**2)
    sums['colour_drift'] += 255 * np.abs(error.mean((0, 1))).mean()
    pair = images_pixels.to_float(image)[None], images_pixels.to_float(truth)[None]
    sums['lpips_vgg'] += feature_networks.distance(*pair)[0]
  row = report.data['table'][method]
  # A level of a pixel of the baselines may tip over.
  tolerance = {'rtol': 2e-3, 'atol': 2e-3} if method in LEARNT else {'rtol': 1e-4}
  for key, value in sums.items():
    want = value / len(NAMES)
    np.testing.assert_allclose(row[key]['value'], want, err_msg=key, **tolerance)
    assert row[key]['low'] < row[key]['value'] < row[key]['high']
  assert row['detail']['value'] > 0  # of those that are square


LEARNT = ('bicubic', 'lanczos')


def frechet(x: np.ndarray, y: np.ndarray) -> float:
  """Of two sets of features, with SciPy's root of a matrix."""
  a, b = np.cov(x.T), np.cov(y.T)
  root = scipy.linalg.sqrtm(a @ b).real
  return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * root)


@pytest.mark.parametrize('method', METHODS)
def test_distances_of_sets(folders, report, method):
  """FID by SciPy's root of a matrix; KID by its definition."""

  def of(name):
    return np.concatenate(
      [
        feature_networks.features(images_pixels.to_float(p)[None])
        for p in pixels(folders, name)
      ]
    )

  x, y = of(METHODS[method]), of('truth')
  row = report.data['table'][method]
  fid = frechet(x, y)
  np.testing.assert_allclose(row['fid']['value'], fid, rtol=2e-2, atol=1e-4)

  def kernel(p, q):
    return (p @ q.T / 4 + 1) ** 3

  within = [
    (kernel(p, p).sum() - np.trace(kernel(p, p))) / (len(p) * (len(p) - 1))
    for p in (x, y)
  ]
  kid = 1e3 * (sum(within) - 2 * kernel(x, y).mean())
  np.testing.assert_allclose(row['kid']['value'], kid, rtol=2e-2, atol=0.5)
  assert row['is']['value'] >= 1


def test_error_rates(folders, report, network):
  imagenet = classifier.load(network)
  table = report.data['table']
  assert list(table) == [*METHODS, 'truth']
  labels = np.arange(len(NAMES))[:, None] % 7
  found = set()
  for method, folder in (METHODS | {'truth': 'truth'}).items():
    shown = [images_pixels.to_float(p)[None] for p in pixels(folders, folder)]
    ranks = np.argsort([-imagenet.logits(image)[0] for image in shown], axis=1)
    for k in (1, 5):
      missed = 1 - (ranks[:, :k] == labels).any(1).mean()
      value = table[method][f'top{k}_error']['value']
      np.testing.assert_allclose(value, missed, atol=1e-6)
      found.add(round(value, 3))
  assert len(found) > 1
  assert set(table['truth']) == {'top1_error', 'top5_error', 'fid', 'kid', 'is'}
  assert abs(table['truth']['fid']['value']) < 1e-4


def test_the_report_is_whole(folders, report, full):
  folder = folders / 'report'
  data = report.data
  assert (folder / 'report.html').stat().st_size > 10_000
  assert '/' + '/'.join(folders.parts[1:]) not in json.dumps(data['protocol'])
  assert data['images'] == len(NAMES)
  assert data['protocol']['images'] == '8 images of truth, 2 sizes'
  assert data['protocol']['left out'].startswith('2 images')
  assert data['protocol']['border'].startswith('2 pixels')
  assert data['protocol']['outputs'] == {'mine': 'mine', 'other one': 'theirs'}
  assert data['command'].startswith('sr3-evaluate --truth=')
  assert "'other one=" in data['command']
  lpips, rings = data['left_out']
  assert lpips['metrics'] == ['lpips_alex'] and '31 x 31' in lpips['why']
  assert rings['metrics'] == ['detail', 'spectrum_db']
  assert rings['why'] == (
    '3 of 8 images are left out, not 24 x 24: sub/f, sub/g, sub/h.'
  )
  values = reports_data.values(report)
  assert values['index'].tolist() == list(range(len(NAMES)))
  for method in METHODS:
    mean = values[f'{method}/psnr'].mean()
    np.testing.assert_allclose(data['table'][method]['psnr']['value'], mean, rtol=1e-5)
  first = data['sheets'][0]
  assert first['columns'] == ['input', *METHODS, 'truth'] and len(first['rows']) == 3
  for sheet in data['sheets']:
    for row in sheet['rows']:
      for column, cell in zip(sheet['columns'], row['cells'], strict=True):
        shown = image_files.read(folder / cell)
        name = METHODS.get(column, {'input': 'small'}.get(column, column))
        wanted = pixels(folders, name)[row['index']]
        assert np.abs(shown.astype(int) - wanted).max() <= (column in LEARNT)
  picks = {s['title'].split(' of ')[0]: s['rows'] for s in data['sheets'][1:]}
  by_psnr = values['mine/psnr'].argsort()
  assert picks['PSNR dB'][0]['index'] == by_psnr[-1]
  assert picks['PSNR dB'][2]['index'] == by_psnr[0]


def test_the_same_command_measures_nothing_again(
  folders, report, full, tiny_networks, monkeypatch, capsys
):
  def refuse(*args, **kwargs):
    raise AssertionError('measured again')

  with monkeypatch.context() as patch:
    patch.setattr(Scorer, '__call__', refuse)
    patch.setattr(Scorer, 'of_set', refuse)
    assert (
      evaluation_command.main([*full, '--batch_size=16']) == 0
    )  # other batches, too
  again = reports_data.load(folders / 'report').data
  assert again['table'] == report.data['table']
  same = set(again) - {'time', 'command'}
  assert all(again[key] == report.data[key] for key in same)
  out = capsys.readouterr().out
  assert 'other one' in out and f'report: {folders / "report" / "report.html"}' in out


def test_other_labels_are_measured(folders, report, full, tiny_networks):
  """And a killed run's report is replaced."""
  other = folders / 'other.txt'
  other.write_text(''.join(f'{name} {(i + 3) % 7}\n' for i, name in enumerate(NAMES)))
  args = [*full, f'--labels={other}', f'--report={folders / "again"}']
  before = [a for a in full if not a.startswith('--report')]
  assert evaluation_command.main([*before, f'--report={folders / "again"}']) == 0
  first = reports_data.load(folders / 'again').data['table']
  assert first == report.data['table']
  assert evaluation_command.main(args) == 0
  second = reports_data.load(folders / 'again').data['table']
  rates = [[t[m]['top1_error']['value'] for m in t] for t in (first, second)]
  assert rates[0] != rates[1]
  assert first['mine']['psnr'] == second['mine']['psnr']


def test_without_weights_the_others_are_measured(folders, tmp_path, monkeypatch):
  """No network, no inputs, no classifier: each says what it needs."""
  monkeypatch.setenv('SR3_JAX_WEIGHTS', str(tmp_path / 'weights'))

  def no_network(*args, **kwargs):
    raise OSError('no route to host')

  monkeypatch.setattr(net_weights, '_fetch', no_network)
  names = ['--networks', 'inception', 'lpips_vgg']
  assert evaluation_command.main(arguments(folders, 'bare', '--border=2', *names)) == 0
  data = reports_data.load(folders / 'bare').data
  assert list(data['table']) == ['mine', 'other one']
  measured = ['psnr', 'ssim', 'psnr_y', 'ssim_y', 'spectrum_db']
  assert sorted(data['table']['mine']) == sorted(measured)
  reasons = {
    key: entry['why'] for entry in data['left_out'] for key in entry['metrics']
  }
  for key, name in (('fid', 'inception'), ('kid', 'inception'), ('lpips_vgg', 'vgg16')):
    assert 'download https://' in reasons[key] and name in reasons[key]
    assert str(tmp_path / 'weights') in reasons[key]
  assert (
    '--inputs' in reasons['consistency'] and '--classifier' in reasons['top1_error']
  )
  assert data['sheets'][0]['columns'] == ['mine', 'other one', 'truth']


def test_a_reference_folder_is_measured_once(
  folders, tmp_path, tiny_networks, monkeypatch
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'kept'))
  more = ['--border=2', '--networks', 'inception']
  args = arguments(folders, 'against', *more, f'--reference={folders / "theirs"}')
  stamps, found = [], []
  for _ in range(2):
    assert evaluation_command.main(args) == 0
    (kept,) = (tmp_path / 'kept').rglob('*.npz')
    stamps.append(kept.stat().st_mtime_ns)
    found.append(reports_data.load(folders / 'against').data)
  assert evaluation_command.main([*args[:-1], f'--reference={kept}']) == 0
  found.append(reports_data.load(folders / 'against').data)
  assert stamps[0] == stamps[1]
  assert found[0]['table'] == found[1]['table'] == found[2]['table']
  about = found[2]['protocol']['reference set']
  assert about['folder'] == 'theirs' and about['images'] == 9

  def of(shown):
    return np.concatenate(
      [feature_networks.features(images_pixels.to_float(p)[None]) for p in shown]
    )

  whole = of([image_files.read(p) for p in (folders / 'theirs').rglob('*.*g')])
  fid = frechet(of(pixels(folders, 'mine')), whole)
  value = found[0]['table']['mine']['fid']['value']
  np.testing.assert_allclose(value, fid, rtol=2e-2, atol=1e-4)


class Counting:
  """A scorer that measures nothing and counts its calls."""

  def __init__(self):
    self.calls = []

  def __call__(self, output, truth, low, condition, batch):
    assert output.shape == truth.shape and low.shape == condition.shape
    self.calls.append('output')
    return {'index': np.asarray([4, 2])}

  def of_set(self, image, batch):
    self.calls.append('truth')
    return {'index': np.asarray([4, 2])}


def test_a_batch_is_measured_once_and_only_where_something_is_missing():
  mask = np.arange(8) < 2
  rng = np.random.default_rng(0)
  batch = {
    'index': np.where(mask, [4, 2, *[0] * 6], -1).astype(np.int32),
    'mask': mask,
    'truth': rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8),
    'input': rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8),
    'mine': rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8),
  }
  scorer, store = Counting(), Records()
  folder_run.measure_batch(scorer, store, 0, batch, ['bicubic'])
  assert scorer.calls == ['truth', 'output']
  (hashes,) = (values['hash'] for values in store.stream('truth'))
  assert len(set(hashes.tolist())) == 2
  folder_run.measure_batch(scorer, store, 0, batch, ['bicubic', 'mine'])
  assert scorer.calls == ['truth', 'output', 'output']  # of `mine` alone
  folder_run.measure_batch(scorer, store, 0, batch | {'mask': mask & False}, ['other'])
  assert len(scorer.calls) == 3


def test_a_tiny_and_an_equal_picture_among_others(tmp_path):
  """Seven of 24 x 24 and one of 8 x 8: SSIM, detail and spectrum are of the seven."""
  rng = np.random.default_rng(0)
  for number in range(8):
    side = 8 if number == 7 else 24
    truth = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    mine = truth if number == 0 else np.clip(truth * 0.9 + 5, 0, 255).astype(np.uint8)
    for folder, image in (('truth', truth), ('mine', mine)):
      (tmp_path / folder).mkdir(exist_ok=True)
      PIL.Image.fromarray(image).save(tmp_path / folder / f'{number}.png')
  more = [f'--report={tmp_path / "report"}', '--cache=', '--networks']
  folders = [f'--truth={tmp_path / "truth"}', '--outputs', str(tmp_path / 'mine')]
  assert evaluation_command.main([*folders, *more]) == 0
  data = reports_data.load(tmp_path / 'report').data
  assert {'psnr', 'ssim', 'ssim_y', 'spectrum_db'} <= set(data['table']['mine'])
  assert data['images'] == 8
  reasons = {
    key: entry['why'] for entry in data['left_out'] for key in entry['metrics']
  }
  for key in ('ssim', 'ssim_y', 'spectrum_db'):
    assert (
      reasons[key].startswith('1 of 8 images are left out') and ': 7.' in reasons[key]
    )
  with np.load(tmp_path / 'report' / 'values.npz') as values:
    assert values['mine/psnr'][0] == 100  # equal
    assert np.isfinite(values['mine/psnr']).all()
    # Others keep their SSIM where one has none.
    assert np.isfinite(values['mine/ssim']).tolist() == 7 * [True] + [False]
    ssim = values['mine/ssim'][:7].mean()
    mean = values['mine/psnr'].mean()
  np.testing.assert_allclose(data['table']['mine']['psnr']['value'], mean, rtol=1e-5)
  np.testing.assert_allclose(data['table']['mine']['ssim']['value'], ssim, rtol=1e-5)


@pytest.mark.parametrize('count', [2, 4])
def test_crops_of_a_photograph_are_told(folders, tmp_path, capsys, count):
  lines = [f'{name} photo{i % count}.jpg\n' for i, name in enumerate(NAMES)]
  (tmp_path / 'of.txt').write_text(''.join(lines))
  more = ['--networks', f'--photographs={tmp_path / "of.txt"}']
  report = f'photographs{count}'
  assert evaluation_command.main(arguments(folders, report, *more)) == 0
  about = f'8 crops of {count} photographs'
  assert about in capsys.readouterr().out
  loaded = reports_data.load(folders / report)
  entry = loaded.data['table']['mine']['psnr']
  assert ('low' in entry) == (count == 4)
  assert loaded.photographs() == count and loaded.data['images'] == 8
  assert loaded.data['protocol']['images'].startswith(about)
  page = (folders / report / 'report.html').read_text()
  assert about in page
  assert ('without intervals' in page) == (count == 2)
  assert ('95 % interval over images' in page) == (count == 4)
  # Without the file each is one of its own.
  assert evaluation_command.main(arguments(folders, report, '--networks')) == 0
  assert reports_data.load(folders / report).photographs() == 8
