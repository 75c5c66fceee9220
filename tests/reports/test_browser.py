"""The pages of reports in headless Chromium; skipped where there is none."""

import json
import shutil

import pytest

from sr3_jax.reports import compare, compare_page
from sr3_jax.reports import data as reports_data
from sr3_jax.reports import page as reports_page
from tests.support import report_folders

webdriver = pytest.importorskip('selenium.webdriver')
BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser'))), None)
DRIVER = shutil.which('chromedriver')
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason='no Chromium')

OPTIONS = (
  '--headless=new',
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  options = webdriver.ChromeOptions()
  options.binary_location = BROWSER
  for option in (*OPTIONS, f'--user-data-dir={tmp_path_factory.mktemp("profile")}'):
    options.add_argument(option)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
  service = webdriver.ChromeService(DRIVER)
  driver = webdriver.Chrome(options=options, service=service)
  yield driver
  driver.quit()


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
  place = tmp_path_factory.mktemp('runs')
  whole = report_folders.make(place / 'a', count=6)
  report_folders.make(place / 'b', count=6, grain=20.0, seed=1)
  reports = [reports_data.load(place / name, name) for name in 'ab']
  pairs = compare.differences(*reports)
  html = {
    'report': reports_page.render(whole, place / 'a'),
    'compare': compare_page.render(reports, pairs),
  }
  for name, text in html.items():
    (place / f'{name}.html').write_text(text)
  return {name: (place / f'{name}.html').as_uri() for name in html}


def show(browser, address, width=1280, scheme='light'):
  """Opens a page in a window of a width and a colour scheme."""
  screen = {
    'width': width,
    'height': 800,
    'deviceScaleFactor': 1,
    'mobile': width < 600,
  }
  browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
  feature = {'name': 'prefers-color-scheme', 'value': scheme}
  media = {'media': 'screen', 'features': [feature]}
  browser.execute_cdp_cmd('Emulation.setEmulatedMedia', media)
  browser.get(address)


def requested(browser, page) -> set[str]:
  """Addresses that a page has asked for; the browser's own start page doesn't count."""
  found = set()
  for entry in browser.get_log('performance'):
    message = json.loads(entry['message'])['message']
    sent = message['method'] == 'Network.requestWillBeSent'
    if sent and message['params']['documentURL'].startswith(page):
      found.add(message['params']['request']['url'])
  return found


@pytest.mark.parametrize('name', ['report', 'compare'])
def test_a_page_needs_no_network_and_fits_any_screen(browser, pages, name):
  colours = {}
  for width in (320, 1280):
    for scheme in ('light', 'dark'):
      show(browser, pages[name], width, scheme)
      wide, broken, back = browser.execute_script("""
        const root = document.documentElement;
        const broken = Array.from(document.images).filter((i) => !i.naturalWidth);
        return [root.scrollWidth - root.clientWidth, broken.length,
                getComputedStyle(document.body).backgroundColor];
      """)
      assert (wide, broken) == (0, 0), (width, scheme)
      colours[scheme] = back
  assert colours == {'light': 'rgb(255, 255, 255)', 'dark': 'rgb(20, 23, 27)'}
  assert browser.get_log('browser') == []
  asked = requested(browser, pages[name])
  assert pages[name] in asked
  assert {url for url in asked if not url.startswith(('file:', 'data:'))} == set()


def test_wide_tables_scroll_beside_their_first_column(browser, pages):
  show(browser, pages['report'], 320)
  scrolled, before, after = browser.execute_script("""
    const box = document.querySelector('.scroll');
    const name = box.querySelector('tbody th');
    const before = name.getBoundingClientRect().left;
    box.scrollLeft = 200;
    return [box.scrollLeft, before, name.getBoundingClientRect().left];
  """)
  assert scrolled == 200 and abs(before - after) <= 1


def test_small_pictures_keep_their_pixels(browser, pages):
  show(browser, pages['report'])
  found = browser.execute_script("""
    return Array.from(document.querySelectorAll('.strip img')).map(
      (i) => [i.naturalWidth, i.clientWidth, getComputedStyle(i).imageRendering]);
  """)
  assert {tuple(image) for image in found} == {
    (16, 128, 'pixelated'),
    (64, 128, 'pixelated'),
  }


VISIBLE = """
  const viewer = document.getElementById('viewer');
  const on = Array.from(viewer.querySelectorAll('img')).filter(
    (i) => getComputedStyle(i).visibility === 'visible');
  return viewer.open ? on.map((i) => [i.alt, i.clientWidth, i.naturalWidth]) : null;
"""


def test_pictures_are_zoomed_and_flicked_by_keyboard(browser, pages):
  from selenium.webdriver.common.keys import Keys

  show(browser, pages['report'])

  def press(*keys):
    return browser.switch_to.active_element.send_keys(*keys)

  def seen():
    return [alt for alt, _, _ in browser.execute_script(VISIBLE)]

  assert browser.execute_script(VISIBLE) is None
  cell = browser.find_elements('css selector', '.zoom')[4]
  browser.execute_script('arguments[0].focus()', cell)
  press(Keys.ENTER)
  ((alt, width, natural),) = browser.execute_script(VISIBLE)
  assert alt == 'sr3, image 0'
  assert natural == 64 and width % 64 == 0 and width >= 320  # whole pixels
  press(Keys.SPACE)
  assert seen() == ['truth, image 0']  # the first flick is to the truth
  press(Keys.SPACE)
  assert seen() == ['sr3, image 0']
  press(Keys.ARROW_LEFT)
  assert seen() == ['regression, image 0']
  press(Keys.SPACE, Keys.SPACE, Keys.SPACE)
  assert seen() == ['sr3, image 0']
  press(Keys.ARROW_DOWN)
  assert seen() == ['sr3, image 1']
  tab = browser.find_element('xpath', '//div[@id="viewer-tabs"]/button[text()="input"]')
  tab.click()
  assert seen() == ['input, image 1'] and tab.get_attribute('aria-pressed') == 'true'
  # Input and outputs lie on each other at one size.
  assert browser.execute_script(VISIBLE)[0][1] == width
  press(Keys.ESCAPE)
  assert browser.execute_script(VISIBLE) is None
  focused = browser.switch_to.active_element.find_element('tag name', 'img')
  assert focused.get_attribute('alt') == 'input, image 1'
  assert browser.get_log('browser') == []


def test_a_tap_flicks_too(browser, pages):
  show(browser, pages['compare'], 320)
  browser.find_elements('css selector', '.zoom')[0].click()
  browser.find_element('id', 'viewer-stage').click()
  assert browser.execute_script(VISIBLE)[0][0] == 'truth, image 0'
  browser.find_element('id', 'viewer-close').click()
  assert browser.execute_script(VISIBLE) is None


def test_all_is_open_on_paper(browser, pages):
  show(browser, pages['report'])
  dark = {'name': 'prefers-color-scheme', 'value': 'dark'}
  on_paper = {'media': 'print', 'features': [dark]}
  browser.execute_cdp_cmd('Emulation.setEmulatedMedia', on_paper)
  browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
  back, closed = browser.execute_script("""
    const closed = document.querySelectorAll('details:not([open])');
    return [getComputedStyle(document.body).backgroundColor, closed.length];
  """)
  assert (back, closed) == ('rgb(255, 255, 255)', 0)
