"""A subject of a study in a real browser, and what it looks at."""

import time

# What is seen, measured apart from the page's own clock: when pictures come and go.
WATCH = """
window.seen = [];
new MutationObserver(() => {
  const here = document.querySelectorAll('#stage img').length;
  const last = window.seen[window.seen.length - 1];
  if (here && (!last || last.end)) {
    window.seen.push({start: performance.now(), count: here});
  }
  if (!here && last && !last.end) last.end = performance.now();
}).observe(document.getElementById('stage'), {childList: true});
"""

# Elements that show text of their own with less than 4.5 to 1 (3 to 1 if large).
FAINT = """
const channels = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => {
  const f = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
};
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const c = channels(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c;
  }
  return [255, 255, 255];
};
const faint = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || !e.checkVisibility()) continue;
  const [a, b] = [light(channels(getComputedStyle(e).color)), light(ground(e))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < 4.5) faint.push([e.outerHTML, contrast]);
}
return faint;
"""


class Browser:
  """A subject at a computer, or at a telephone."""

  def __init__(self, driver):
    self.driver = driver

  def script(self, text, *args):
    return self.driver.execute_script(text, *args)

  def find(self, selector, seconds=10):
    """The element, once it is to be seen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
      found = self.script(
        'const e = document.querySelector(arguments[0]);'
        'return e && e.checkVisibility() ? e : null;',
        selector,
      )
      if found:
        return found
      time.sleep(0.01)
    raise AssertionError(f'no {selector}: {self.driver.get_log("browser")}')

  def click(self, selector):
    self.find(selector).click()

  def press(self, key):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(self.driver).send_keys(key).perform()

  def screen(self, width, height, scheme='light'):
    phone = width < 500
    cdp = self.driver.execute_cdp_cmd
    metrics = {'width': width, 'height': height, 'deviceScaleFactor': 1 + phone}
    cdp('Emulation.setDeviceMetricsOverride', {**metrics, 'mobile': phone})
    cdp('Emulation.setTouchEmulationEnabled', {'enabled': phone})
    feature = {'name': 'prefers-color-scheme', 'value': scheme}
    cdp('Emulation.setEmulatedMedia', {'features': [feature]})

  def open(self, url):
    """The first page as somebody new sees it."""
    self.driver.get(url)
    self.script('localStorage.clear()')
    self.driver.get_log('browser')
    self.driver.get(url)
    self.find('#welcome')

  def begin(self, url):
    """From the first page to the instructions."""
    self.open(url)
    self.click('#agree')
    self.click('#consent button')
    self.find('#how')

  def assert_quiet(self):
    """The console is empty: no error, nothing that the policy blocked."""
    log = self.driver.get_log('browser')
    assert not log, log

  def next_choice(self):
    """Waits until a choice is wanted; goes on where a rest is offered."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
      state = self.script(
        'const seen = (id) => document.querySelector(id)?.checkVisibility();'
        "if (seen('#rested')) document.querySelector('#rested').click();"
        "return seen('#stage button') ? 'choose' : seen('#end') ? 'end' : '';"
      )
      if state:
        return state == 'choose'
      time.sleep(0.005)
    raise AssertionError('no choice is offered')
