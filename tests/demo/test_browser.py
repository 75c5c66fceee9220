"""The demo in headless Chromium, from upload to result; skipped where there is none."""

import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from sr3_jax.demo import server
from sr3_jax.images import image_files
from tests.support import demos
from tests.support.study_browser import FAINT, Browser

pytest.importorskip('gradio')
webdriver = pytest.importorskip('selenium.webdriver')
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason='no Chromium')

OPTIONS = (
  'headless=new',
  'no-sandbox',
  'disable-gpu',
  'no-first-run',
  'disable-background-networking',
  'disable-component-update',
  'disable-sync',
)
# Controls without a name that a screen reader could say.
NAMELESS = """
return [...document.querySelectorAll('input, button, select, textarea')].filter((e) =>
  e.checkVisibility() && !e.getAttribute('aria-label') && !e.innerText.trim() &&
  !(e.labels && e.labels.length)).map((e) => e.outerHTML);
"""
WIDTH = 'return document.documentElement.scrollWidth'


@pytest.fixture(scope='module')
def url():
  port = server.free_port('127.0.0.1', 0)
  models = demos.small_models()
  limits = demos.LIMITS._replace(pixels=2**14)
  with server.Server(models, limits, '127.0.0.1', port) as found:
    yield found.urls[0]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('browser')


@pytest.fixture(scope='module')
def browser(folder):
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for option in (*OPTIONS, f'user-data-dir={folder / "profile"}'):
    options.add_argument(f'--{option}')
  prefs = {'download.default_directory': str(folder / 'downloads')}
  options.add_experimental_option('prefs', prefs)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
  driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
  yield Browser(driver)
  driver.quit()


@pytest.fixture
def page(browser, url, folder):
  """The page, with a picture dropped on it."""
  demos.save(folder / 'a.png', 120, 80)
  browser.screen(1280, 1000)
  browser.driver.get(url)
  upload(browser, folder / 'a.png')
  return browser


def upload(browser, path):
  until(lambda: browser.driver.find_elements('css selector', 'input[type=file]'))
  field = browser.driver.find_element('css selector', 'input[type=file]')
  field.send_keys(str(path))
  browser.find('img[alt=""], .image-container img', 30)


def until(condition, seconds=60):
  end = time.monotonic() + seconds
  while not (found := condition()):
    assert time.monotonic() < end
    time.sleep(0.1)
  return found


def press(browser, text):
  for button in browser.driver.find_elements('tag name', 'button'):
    if button.text.strip() == text:
      return button.click()
  raise AssertionError(f'no button {text}')


def fill_in(browser, label, text):
  from selenium.webdriver.common.keys import Keys

  field = browser.find(f'input[aria-label="{label}"]')
  field.send_keys(Keys.CONTROL, 'a')
  field.send_keys(text, Keys.ENTER, Keys.TAB)


def result(browser, folder, name):
  """Press the button, and return the downloaded result."""
  press(browser, 'Restore')
  browser.find('#about', 60)
  until(lambda: 'pixels in' in browser.find('#about').text)
  press(browser, 'Download')
  file = folder / 'downloads' / name
  until(file.exists)
  return np.asarray(Image.open(file))


def test_from_upload_to_result(page, folder):
  fill_in(page, 'Steps', '3')
  fill_in(page, 'number input for Samples', '2')
  pixels = result(page, folder, 'a_large_1.png')
  assert pixels.shape == (320, 480, 3)
  assert '480 x 320 pixels' in page.find('#about').text
  assert '3 steps' in page.find('#about').text
  sides = page.script(
    "return [...document.querySelectorAll('img')].map((e) => [e.naturalWidth, "
    'e.naturalHeight])'
  )
  assert sides.count([480, 320]) >= 4  # before and after, two samples
  assert any(side[0] == 480 and side[1] > 330 for side in sides)  # the spread's scale
  assert page.script(NAMELESS) == []
  # The triangles on the slider's handle are no text: 3 to 1 is enough.
  faint = [html for html, _ in page.script(FAINT) if 'class="icon' not in html]
  assert faint == []
  for width in (390, 320):
    page.screen(width, 844)
    assert page.script(WIDTH) == width


def test_a_mistake_is_told(page, folder):
  fill_in(page, 'Steps', '21')
  press(page, 'Restore')
  until(lambda: '21 steps: this demo takes up to 20' in page.find('body').text)


def test_what_is_painted_over_is_filled_in(page, folder):
  from selenium.webdriver.common.action_chains import ActionChains

  assert page.script("return document.querySelectorAll('canvas').length") == 0
  page.click('input[aria-label="Model"]')
  page.click('li[aria-label="fills"]')
  canvas = page.find('canvas', 30)
  until(lambda: 'Inpainting' in page.find('#terms').text)
  time.sleep(1)  # the editor has no sign that it is ready to be painted on
  (
    ActionChains(page.driver)
    .move_to_element(canvas)
    .click_and_hold()
    .move_by_offset(6, 0)
    .move_by_offset(6, 4)
    .release()
    .perform()
  )
  time.sleep(1)
  pixels = result(page, folder, 'a_fills.png')
  changed = (pixels != image_files.read(folder / 'a.png')).any(-1)
  assert 0.01 < changed.mean() < 0.2  # a short stroke of the brush


def test_nothing_is_loaded_from_elsewhere(page, url):
  hosts = set()
  for entry in page.driver.get_log('performance'):
    message = json.loads(entry['message'])['message']
    if message['method'] == 'Network.requestWillBeSent':
      address = message['params']['request']['url']
      if address.startswith('http'):
        hosts.add(address.split('/')[2])
  assert hosts == {url.split('/')[2]}
