"""A study in a real browser: from its first page to the analysed result."""

import collections
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from sr3_jax.human_study import command as human_study_command
from sr3_jax.human_study import design as human_study_design
from sr3_jax.human_study import server as human_study_server
from sr3_jax.human_study import site_builder
from tests.support import studies
from tests.support.studies import SECONDS
from tests.support.study_browser import FAINT, WATCH, Browser

ROOT = pathlib.Path(__file__).parents[2]
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return studies.make_site(tmp_path_factory.mktemp('study'))


@pytest.fixture(scope='module')
def site(made):
  return made[0]


@pytest.fixture(scope='module')
def key(made):
  return made[1]


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  webdriver = pytest.importorskip('selenium.webdriver')
  if not (CHROMIUM and DRIVER):
    pytest.skip('no chromium with its chromedriver')
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for option in (
    'headless=new',
    'no-sandbox',
    'disable-gpu',
    'no-first-run',
    'disable-background-networking',
    'disable-component-update',
    'disable-sync',
    f'user-data-dir={tmp_path_factory.mktemp("profile")}',
  ):
    options.add_argument(f'--{option}')
  options.add_experimental_option(
    'prefs', {'download.default_directory': str(tmp_path_factory.mktemp('downloads'))}
  )
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  service = webdriver.ChromeService(DRIVER)
  driver = webdriver.Chrome(options, service)
  browser = Browser(driver)
  browser.downloads = pathlib.Path(
    options.experimental_options['prefs']['download.default_directory']
  )
  yield browser
  driver.quit()


def choose(browser, key, number, lost, answer, first=0):
  """Answers trials from `first` on; those in `lost` with the model's side."""
  other = {'left': 'right', 'right': 'left'}
  trials = key['subjects'][number - 1]['trials']
  for i in range(first, len(trials)):
    assert browser.next_choice(), f'trial {i}'
    # The pictures have vanished: there are none in the page.
    assert browser.script("return document.querySelectorAll('main img').length") == 0
    real = trials[i][2]
    answer(i, other[real] if i in lost else real)
  assert not browser.next_choice()


def expected(result, trials, lost):
  """method -> (fooled, trials) that count, from a result's own records."""
  counts = collections.Counter()
  for i, (answer, (_, shown, _)) in enumerate(
    zip(result['answers'], trials, strict=True)
  ):
    good = answer['views'] == 1 and abs(answer['shown_ms'] - 1000 * SECONDS) <= 100
    if good and shown in ('bicubic', 'sharp'):
      counts[shown, 'trials'] += 1
      counts[shown, 'fooled'] += i in lost
  return counts


def test_a_study_from_the_first_page_to_the_analysed_result(
  browser, site, key, tmp_path, capsys
):
  """Subject 1 by keyboard from the disk, subject 2 by mouse through the server."""
  from selenium.webdriver.common.keys import Keys

  # Subject 1, task 1: prefers all of sharp's, none of bicubic's. Only keys.
  trials = key['subjects'][0]['trials']
  lost1 = {i for i, (_, shown, _) in enumerate(trials) if shown == 'sharp'}
  browser.screen(1280, 800)
  browser.open(f'{site.as_uri()}/index.html?subject=1')
  browser.script("document.getElementById('number').focus()")
  browser.press(Keys.ENTER)  # without consent
  assert 'tick the box' in browser.find('#agree-error').text
  browser.press(' ')  # the focus went there
  browser.press(Keys.TAB)
  browser.press(Keys.ENTER)
  browser.find('#how')
  assert human_study_design.QUESTIONS[1] in browser.find('#how').text
  browser.script(WATCH)
  browser.press(Keys.TAB)
  browser.press(Keys.ENTER)
  keys = {'left': (Keys.ARROW_LEFT, '1'), 'right': (Keys.ARROW_RIGHT, '2')}
  seen = []

  def by_key(i, side):
    if i == 6:  # a reload goes on with this pair, and notes that it is seen again
      seen.extend(browser.script('return window.seen'))
      browser.driver.refresh()
      assert browser.find('#answered').text == f'6 of {len(trials)}'
      browser.script(WATCH)
      browser.click('#go-on')
      assert browser.next_choice()
    browser.press(keys[side][i % 2])

  choose(browser, key, 1, lost1, by_key)
  seen.extend(browser.script('return window.seen'))
  assert 'could not be sent' in browser.find('#send-status').text  # no server here
  browser.click('#download')
  end = time.monotonic() + 10
  while not (files := list(browser.downloads.glob('study-*.json'))):
    assert time.monotonic() < end
    time.sleep(0.02)
  result = json.loads(files[0].read_text())
  assert {answer['device'] for answer in result['answers']} == {'keyboard'}
  views = [answer['views'] for answer in result['answers']]
  assert views == [1 + (i == 6) for i in range(len(trials))]
  # Three pictures, for the time that is said, by a clock that isn't the page's.
  assert len(seen) == len(trials) + 1
  assert {view['count'] for view in seen} == {3}
  lasted = [view['end'] - view['start'] for view in seen]
  assert 1000 * SECONDS - 25 < np.median(lasted) < 1000 * SECONDS + 150
  shown = [answer['shown_ms'] for answer in result['answers']]
  assert np.median(np.abs(np.array(lasted[:6]) - shown[:6])) < 40
  log = browser.driver.get_log('browser')
  assert all('/results' in entry['message'] for entry in log), log

  # Subject 2, task 2: prefers the first two of sharp's and one of bicubic's.
  trials = key['subjects'][1]['trials']
  own = [i for i, (_, shown, _) in enumerate(trials) if shown == 'sharp']
  lost2 = {*own[:2], next(i for i, t in enumerate(trials) if t[1] == 'bicubic')}
  server = subprocess.Popen(
    [sys.executable, '-m', 'sr3_jax.human_study', 'serve', str(site), '--port=0'],
    stdout=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )
  try:
    url = server.stdout.readline().split()[0]
    assert re.fullmatch(r'http://127\.0\.0\.1:\d+/', url)
    browser.begin(f'{url}?subject=2')
    browser.click('#practise')
    choose(browser, key, 2, lost2, lambda i, side: browser.click(f'#stage .{side}'))
    browser.find('#end')
    end = time.monotonic() + 10
    while 'were sent' not in browser.find('#send-status').text:
      assert time.monotonic() < end
    browser.driver.refresh()  # not sent twice
    assert 'were sent' in browser.find('#send-status').text
  finally:
    server.terminate()
    server.wait()
    server.stdout.close()
  browser.assert_quiet()
  posted = list(human_study_server.results_path(site).iterdir())
  assert len(posted) == 1

  out = tmp_path / 'analysis.json'
  paths = [str(files[0]), str(posted[0])]
  args = ['analyse', str(site_builder.key_path(site)), *paths, f'--json={out}']
  assert human_study_command.main(args) == 0
  found = json.loads(out.read_text())
  assert (found['subjects'], found['left_out'], found['skipped']) == (2, 0, {})
  for task, file, lost in ((1, files[0], lost1), (2, posted[0], lost2)):
    record = json.loads(file.read_text())
    counts = expected(record, key['subjects'][task - 1]['trials'], lost)
    rates = {r['method']: r for r in found['rates'] if r['task'] == task}
    for method in ('bicubic', 'sharp'):
      assert rates[method]['fooled'] == counts[method, 'fooled']
      assert rates[method]['trials'] == counts[method, 'trials'] >= 3
    if task == 1:
      assert (rates['sharp']['rate'], rates['bicubic']['rate']) == (1, 0)
  assert 'mouse' in {a['device'] for a in json.loads(posted[0].read_text())['answers']}
  assert re.search(r'sharp +100\.0 %', capsys.readouterr().out)


def test_a_telephone_shows_all_without_scrolling_sideways(browser, site):
  browser.screen(320, 640)
  size = 'const e = document.documentElement; return [e.scrollWidth, e.scrollHeight]'
  browser.begin(f'{site.as_uri()}/index.html?subject=1')
  assert browser.script(size)[0] == 320
  assert 'press' not in browser.find('#how').text  # it has no keys
  # Pictures stay for as long as they are looked at here.
  browser.script('window.STUDY.seconds = 3')
  browser.click('#practise')
  browser.find('#stage img.input')
  assert 'of the image on top?' in browser.find('#question').text
  assert browser.script(size) == [320, 640]
  box = browser.script(
    'return ["left", "right", "input"].map((name) => {'
    'const b = document.querySelector(`#stage img.${name}`).getBoundingClientRect();'
    'return [b.left, b.top, b.width, b.height]})'
  )
  assert len({tuple(b[2:]) for b in box}) == 1 and box[0][2] == box[0][3] > 130
  assert box[0][1] == box[1][1] > box[2][1]
  assert box[0][0] < box[2][0] < box[1][0]
  browser.find('#stage button.right')
  assert browser.script(size) == [320, 640]
  for width, height in ((390, 500), (640, 320)):  # short, lying
    browser.screen(width, height)
    assert browser.script(size) == [width, height]
  browser.screen(320, 640)
  browser.click('#stage button.right')
  browser.find('#stage img.right')  # the next pair
  browser.assert_quiet()


def test_a_missing_picture_and_another_tab_are_noticed(browser, site, tmp_path):
  broken = tmp_path / 'site'
  shutil.copytree(site, broken)
  shutil.move(broken / 'pictures', broken / 'away')
  browser.screen(1024, 768)
  browser.begin(f'{broken.as_uri()}/index.html?subject=2')
  browser.click('#practise')
  assert 'did not load' in browser.find('#trouble').text
  (broken / 'away').rename(broken / 'pictures')
  browser.script('window.STUDY.seconds = 1.5')
  browser.click('#retry')
  browser.find('#stage img')
  page = browser.driver.current_window_handle
  browser.driver.switch_to.new_window('tab')
  browser.driver.close()
  browser.driver.switch_to.window(page)
  browser.click('#stage button.left')
  browser.find('#stage img')  # of the next pair, which nothing disturbs
  browser.click('#stage button.left')
  kept = 'return JSON.parse(Object.values(localStorage)[0]).answers'
  assert [a['interrupted'] for a in browser.script(kept)] == [True, False]
  (broken / 'plan.js').unlink()
  browser.driver.refresh()
  assert 'did not load' in browser.find('#trouble').text


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_both_schemes_reach_the_contrast_of_wcag_aa(browser, site, scheme):
  browser.screen(1024, 768, scheme)
  browser.open(f'{site.as_uri()}/index.html?subject=2')
  assert browser.script('return document.documentElement.lang') == 'en'
  # What the builder wrote is text, not markup.
  assert browser.find('#contact-text').text == '<b>Ann</b> & Bob'
  red, *_ = map(
    int,
    re.findall(
      r'\d+', browser.script('return getComputedStyle(document.body).background')
    ),
  )
  assert (red > 200) == (scheme == 'light')
  browser.script("document.getElementById('number').value = 'x'")
  browser.click('#consent button')
  assert browser.find('#number-error').text == 'Please give a number from 1 to 104.'
  assert browser.script(FAINT) == []
  focus = 'const s = getComputedStyle(document.activeElement); return s.outlineWidth'
  assert browser.script(focus) == '3px'
  browser.script("document.getElementById('number').value = '2'")
  browser.click('#agree')
  browser.click('#consent button')
  browser.find('#how')
  assert browser.script(FAINT) == []
  assert browser.script('return document.activeElement.id') == 'how-title'
  browser.click('#practise')
  browser.find('#stage button.left')
  assert browser.script(FAINT) == []
  browser.assert_quiet()


def test_nothing_from_elsewhere_is_loaded(browser, site):
  browser.driver.get(f'{site.as_uri()}/index.html')
  blocked = browser.driver.execute_async_script("""
    const done = arguments[0], blocked = [];
    document.addEventListener('securitypolicyviolation', (event) => {
      blocked.push(event.effectiveDirective);
      if (blocked.length === 3) done(blocked.sort());
    });
    new Image().src = 'http://127.0.0.1:9/a.png';
    fetch('http://127.0.0.1:9/').catch(() => {});
    const script = document.createElement('script');
    script.textContent = 'window.evil = true';
    document.body.append(script);
  """)
  assert blocked == ['connect-src', 'img-src', 'script-src-elem']
  assert browser.script('return window.evil') is None
