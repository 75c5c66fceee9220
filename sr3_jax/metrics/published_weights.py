"""Names the weights of the networks behind metrics, which other projects publish.

`net_weights` fetches and reads them.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Source:
  """A file that another project offers."""

  url: str
  sha256: str  # of the whole file
  size: int  # in bytes
  prefixes: tuple[str, ...]  # of the names of the tensors that are needed

  @property
  def file(self) -> str:
    """Its name in the folder."""
    return self.url.rpartition('/')[2]


@dataclasses.dataclass(frozen=True)
class Weights:
  """The weights of one network."""

  about: str
  licence: str
  sources: tuple[Source, ...]


_TORCHVISION = 'https://download.pytorch.org/models/'
_LPIPS = (
  'https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/'
  'lpips/weights/v0.1/'
)
_VGG16 = Source(
  _TORCHVISION + 'vgg16-397923af.pth',
  '397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0',
  553_433_881,
  ('features.',),
)
WEIGHTS = {
  'inception': Weights(
    'Inception-v3 of 2015-12-05, for FID, KID and the inception score',
    'Apache-2.0 (Google; converted for pytorch-fid)',
    (
      Source(
        'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
        'pt_inception-2015-12-05-6726825d.pth',
        '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2',
        95_628_359,
        ('Conv2d_', 'Mixed_', 'fc.weight'),
      ),
    ),
  ),
  'lpips_alex': Weights(
    'LPIPS v0.1 over AlexNet',
    'BSD-3-Clause (torchvision), BSD-2-Clause (lpips)',
    (
      Source(
        _TORCHVISION + 'alexnet-owt-7be5be79.pth',
        '7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02',
        244_408_911,
        ('features.',),
      ),
      Source(
        _LPIPS + 'alex.pth',
        'df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0',
        6_009,
        ('lin',),
      ),
    ),
  ),
  'lpips_vgg': Weights(
    'LPIPS v0.1 over VGG16',
    'BSD-3-Clause (torchvision), BSD-2-Clause (lpips)',
    (
      _VGG16,
      Source(
        _LPIPS + 'vgg.pth',
        'a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868',
        7_289,
        ('lin',),
      ),
    ),
  ),
  'dists': Weights(
    'DISTS over VGG16',
    'BSD-3-Clause (torchvision), MIT (DISTS)',
    (
      _VGG16,
      # The file of the package DISTS_pytorch 0.1, under a name that says what it is.
      Source(
        'https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/'
        'DISTS_weights-f5e65c96.pth',
        'f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218',
        12_288,
        ('alpha', 'beta'),
      ),
    ),
  ),
}
