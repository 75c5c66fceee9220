/* The study in the browser: no library, no network but the pictures beside this file.
 *
 * plan.js holds, for every participant, which pictures stand left, right and between.
 * Which of them is real is not known here. All that happens is in `session`, which is
 * kept in localStorage so that a reload goes on.
 */
'use strict';

(() => {
  const STUDY = window.STUDY;
  const STORE = `picture-study-${STUDY?.study}`;
  const REST_EVERY = 20; // pairs
  const ANSWER_SECONDS = 2; // for the estimate on the first page
  const KEYS = { ArrowLeft: 'left', 1: 'left', ArrowRight: 'right', 2: 'right' };
  const byId = (id) => document.getElementById(id);

  if (!STUDY) {
    byId('retry').addEventListener('click', () => location.reload());
    show('trouble');
    return;
  }

  let session = load();
  let answer = null; // what to do with a choice, while one is wanted
  let interrupted = false;
  let running = 0; // the latest run of trials; earlier ones end when they see it
  const ready = new Map(); // trial -> promise of its decoded pictures

  // ------------------------------------------------------------------ keeping

  function load() {
    try {
      const kept = JSON.parse(localStorage.getItem(STORE));
      const trials = STUDY.subjects[kept.number - 1].trials.length;
      return Array.isArray(kept.answers) && kept.answers.length <= trials ? kept : null;
    } catch {
      return null; // nothing kept, or storage is switched off
    }
  }

  function keep() {
    try {
      if (session) localStorage.setItem(STORE, JSON.stringify(session));
      else localStorage.removeItem(STORE);
    } catch {
      // The study works without; only a reload would start it again.
    }
  }

  const subject = () => STUDY.subjects[session.number - 1];
  const isDone = () => session.answers.length === subject().trials.length;

  const invited = () => new URLSearchParams(location.search).get('subject');

  function randomHex(bytes) {
    const values = crypto.getRandomValues(new Uint8Array(bytes));
    return Array.from(values, (v) => v.toString(16).padStart(2, '0')).join('');
  }

  // ------------------------------------------------------------------ pages

  function show(id) {
    for (const section of document.querySelectorAll('main > section')) {
      section.hidden = section.id !== id;
    }
    window.scrollTo(0, 0);
    byId(id).querySelector('h1').focus({ preventScroll: true });
  }

  function fill(selector, text) {
    for (const element of document.querySelectorAll(selector)) element.textContent = text;
  }

  function span(name, text) {
    const element = document.createElement('span');
    element.className = name;
    element.textContent = text;
    return element;
  }

  function welcome() {
    const count = STUDY.subjects.length;
    const trials = STUDY.subjects[0].trials.length;
    const each = STUDY.seconds + STUDY.fixation + ANSWER_SECONDS;
    const minutes = Math.ceil((trials * each) / 60);
    fill('.trials', trials);
    fill('.minutes', minutes === 1 ? 'one minute' : `${minutes} minutes`);
    byId('sent-note').textContent = STUDY.post
      ? `At the end your choices are sent to ${new URL(STUDY.post, location.href).host || 'the study'}.`
      : 'At the end you save your choices as a file and pass it to whoever invited you.';
    byId('contact').hidden = !STUDY.contact;
    byId('contact-text').textContent = STUDY.contact;
    byId('number-help').textContent =
      `From 1 to ${count}. If you were not given one, leave this empty.`;
    byId('number').value = invited() || '';
    byId('agree').checked = false;
    show('welcome');
  }

  function begin(event) {
    event.preventDefault();
    const count = STUDY.subjects.length;
    const text = byId('number').value.trim();
    const number = text
      ? Number(/^\d+$/.test(text) ? text : NaN)
      : 1 + Math.floor(Math.random() * count);
    const bad = !(number >= 1 && number <= count);
    const agreed = byId('agree').checked;
    byId('number-error').textContent = bad ? `Please give a number from 1 to ${count}.` : '';
    byId('agree-error').textContent = agreed ? '' : 'Please tick the box to take part.';
    byId('number').setAttribute('aria-invalid', bad);
    byId('agree').setAttribute('aria-invalid', !agreed);
    if (bad || !agreed) {
      byId(bad ? 'number' : 'agree').focus();
      return;
    }
    session = {
      number,
      id: randomHex(16),
      started: new Date().toISOString(),
      answers: [],
      views: 0,
      reduced: false,
      saved: false,
    };
    keep();
    prepare();
    show('how');
  }

  /* Texts of the participant's task; the first pictures start to load. */
  function prepare() {
    const { task } = subject();
    // On a narrow page the input stands above the others.
    const [before, after] = STUDY.questions[task].split('in the middle');
    for (const element of document.querySelectorAll('.question')) {
      element.textContent = before;
      if (after !== undefined) {
        element.append(span('wide', 'in the middle'), span('tall', 'on top'), after);
      }
    }
    fill('.practice', STUDY.practice);
    for (const element of document.querySelectorAll('span.task1')) {
      element.hidden = task !== 1;
    }
    byId('trial').classList.toggle('task1', task === 1);
    ready.clear();
    if (!isDone()) pictures(session.answers.length).catch(() => {});
  }

  function someoneElse() {
    const lost = 'Forget these answers? They were not saved or sent.';
    if (!session.saved && !window.confirm(lost)) return;
    running += 1;
    session = null;
    keep();
    welcome();
  }

  // ------------------------------------------------------------------ trials

  /* Loads and decodes the pictures of a trial: once shown they are there at once. */
  function pictures(index) {
    if (!ready.has(index)) {
      const names = subject().trials[index].map((i) => STUDY.pictures[i]);
      const loading = Promise.all(names.map(picture));
      loading.catch(() => ready.delete(index));
      ready.set(index, loading);
    }
    return ready.get(index);
  }

  async function picture(name, index) {
    const image = new Image();
    image.className = ['left', 'right', 'input'][index];
    image.alt = ['Picture on the left', 'Picture on the right', 'The small input'][index];
    image.decoding = 'sync';
    image.draggable = false;
    image.src = `pictures/${name}.png`;
    await image.decode();
    return image;
  }

  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));

  /* Waits until a frame at which `seconds` are over, to half a frame. */
  async function until(start, seconds) {
    let now = performance.now();
    while (now - start < 1000 * seconds - 8) {
      await frame();
      now = performance.now();
    }
    return now;
  }

  async function run() {
    const own = (running += 1);
    const { trials } = subject();
    show('trial');
    while (!isDone()) {
      const index = session.answers.length;
      let images;
      count(index);
      try {
        images = await pictures(index);
      } catch {
        if (own === running) show('trouble');
        return;
      }
      if (index + 1 < trials.length) pictures(index + 1).catch(() => {});
      const made = await trial(images, () => own === running);
      if (own !== running) return;
      session.answers.push({ trial: index, ...made });
      session.views = 0;
      keep();
      ready.delete(index);
      if (pause(index + 1, trials.length)) return;
    }
    finish();
  }

  function count(index) {
    const left = index - STUDY.practice;
    const total = subject().trials.length - STUDY.practice;
    byId('count').textContent =
      left < 0 ? `Practice ${index + 1} of ${STUDY.practice}` : `Pair ${left + 1} of ${total}`;
    byId('progress').value = Math.max(0, left) / total;
  }

  /* Cross, pictures, nothing, choice. */
  async function trial(images, isCurrent) {
    const stage = byId('stage');
    const cross = document.createElement('div');
    cross.className = 'cross';
    byId('hint').classList.add('away');
    byId('question').focus({ preventScroll: true });
    stage.replaceChildren(cross);
    await until(performance.now(), STUDY.fixation);
    if (!isCurrent()) return null;

    // Noted before they are seen: a reload doesn't give a second look unnoticed.
    session.views += 1;
    keep();
    await frame();
    interrupted = document.hidden;
    stage.replaceChildren(...images);
    noteSize(images);
    const start = performance.now();
    const end = await until(start, STUDY.seconds);
    const disturbed = interrupted;
    stage.replaceChildren(...['left', 'right'].map(choice));
    byId('hint').classList.remove('away');

    const { side, device, time } = await new Promise((resolve) => {
      answer = (given, by) => {
        answer = null;
        resolve({ side: given, device: by, time: performance.now() });
      };
    });
    stage.replaceChildren();
    const rounded = (ms) => Math.round(10 * ms) / 10;
    return {
      answer: side,
      shown_ms: rounded(end - start),
      answer_ms: rounded(time - end),
      views: session.views,
      interrupted: disturbed,
      device,
    };
  }

  function choice(side) {
    const button = document.createElement('button');
    const arrow = span('arrow', side === 'left' ? '←' : '→');
    button.type = 'button';
    button.className = side;
    arrow.setAttribute('aria-hidden', 'true');
    button.append(arrow, side === 'left' ? 'Left' : 'Right');
    button.setAttribute('aria-keyshortcuts', side === 'left' ? 'ArrowLeft 1' : 'ArrowRight 2');
    button.addEventListener('click', (event) => {
      if (answer) answer(side, event.detail === 0 ? 'keyboard' : event.pointerType || 'mouse');
    });
    return button;
  }

  /* Fewer pixels of the screen than of the picture: detail was lost. */
  function noteSize(images) {
    for (const image of images) {
      const shown = image.getBoundingClientRect().width * window.devicePixelRatio;
      const size = Math.max(image.naturalWidth, image.naturalHeight);
      if (shown < size - 1) session.reduced = true;
    }
  }

  function pause(index, total) {
    const counted = index - STUDY.practice;
    const left = total - index;
    if (left === 0 || counted < 0 || counted % REST_EVERY !== 0) return false;
    byId('rest-title').textContent = counted === 0 ? 'That was the practice' : 'A short rest';
    byId('rest-text').textContent =
      counted === 0
        ? `From now on it counts: ${left} pairs.`
        : `${left} pairs are left. Go on when you like.`;
    show('rest');
    return true;
  }

  // ------------------------------------------------------------------ results

  function result() {
    return {
      format: 1,
      study: STUDY.study,
      id: session.id,
      number: session.number,
      started: session.started,
      finished: session.finished,
      reduced: session.reduced,
      screen: [window.innerWidth, window.innerHeight, window.devicePixelRatio],
      answers: session.answers,
    };
  }

  function finish() {
    session.finished = session.finished || new Date().toISOString();
    keep();
    const link = byId('download');
    const file = new Blob([JSON.stringify(result())], { type: 'application/json' });
    if (link.href) URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(file);
    link.download = `study-${STUDY.study}-${session.number}-${session.id.slice(0, 6)}.json`;
    byId('send').hidden = true;
    byId('send-status').textContent = STUDY.post
      ? ''
      : 'Please save the results and pass the file to whoever invited you.';
    show('end');
    if (STUDY.post && session.sent) byId('send-status').textContent = 'Your answers were sent.';
    else if (STUDY.post) send();
  }

  async function send() {
    const status = byId('send-status');
    byId('send').hidden = true;
    status.textContent = 'Sending your answers…';
    try {
      const response = await fetch(STUDY.post, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(result()),
        credentials: 'omit',
        signal: AbortSignal.timeout(20000),
      });
      if (!response.ok) throw new Error(response.status);
      session.sent = session.saved = true;
      keep();
      status.textContent = 'Your answers were sent. You can close the page.';
    } catch {
      status.textContent =
        'Your answers could not be sent. Please save them as a file and pass it to whoever ' +
        'invited you, or try to send them again.';
      byId('send').hidden = false;
    }
  }

  // ------------------------------------------------------------------ start

  document.addEventListener('keydown', (event) => {
    const side = KEYS[event.key];
    // A key held down since the last pair is no answer to this one.
    if (!answer || !side || event.repeat) return;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    answer(side, 'keyboard');
  });
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) interrupted = true;
  });
  byId('consent').addEventListener('submit', begin);
  for (const id of ['go-on', 'practise', 'rested', 'retry']) {
    byId(id).addEventListener('click', run);
  }
  for (const button of document.querySelectorAll('button.new')) {
    button.addEventListener('click', someoneElse);
  }
  byId('send').addEventListener('click', send);
  byId('download').addEventListener('click', () => {
    session.saved = true;
    keep();
  });

  // Small pictures are enlarged three times at most, large ones not at all; and all alike.
  const size = Math.max(...STUDY.size);
  const limit = Math.max(192, Math.min(3 * size, Math.max(384, size)));
  byId('trial').style.setProperty('--largest', `${limit}px`);
  fill('.seconds', STUDY.seconds === 1 ? 'one second' : `${STUDY.seconds} seconds`);

  // A finished session doesn't stand in the way of the next participant's link.
  if (session && isDone() && session.saved && invited()) {
    if (Number(invited()) !== session.number) session = null;
  }
  if (!session) {
    welcome();
  } else {
    prepare();
    if (isDone()) finish();
    else {
      byId('answered').textContent = `${session.answers.length} of ${subject().trials.length}`;
      show('resume');
    }
  }
})();
