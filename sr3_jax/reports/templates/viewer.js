
'use strict';
// A picture large, and flicking between those of its row, all at the same place.
const viewer = document.getElementById('viewer');
const stage = document.getElementById('viewer-stage');
const tabs = document.getElementById('viewer-tabs');
const title = document.getElementById('viewer-name');
const rows = Array.from(document.querySelectorAll('.strip'))
  .filter((strip) => strip.querySelector('.zoom'));
let row = 0, shown = 0, before = 0;

const buttons = (r) => Array.from(rows[r].querySelectorAll('.zoom'));

function show(i) {
  const count = tabs.children.length;
  i = (i + count) % count;
  if (i !== shown) before = shown;
  shown = i;
  Array.from(stage.children).forEach((image, k) => image.classList.toggle('on', k === i));
  Array.from(tabs.children).forEach((tab, k) => tab.setAttribute('aria-pressed', k === i));
  title.textContent = stage.children[i].alt;
}

function fill(r, i) {
  row = (r + rows.length) % rows.length;
  const images = buttons(row).map((button) => button.querySelector('img'));
  stage.replaceChildren(...images.map((image) => {
    const copy = new Image();
    copy.src = image.src;
    copy.alt = image.alt;
    return copy;
  }));
  tabs.replaceChildren(...images.map((image, k) => {
    const tab = document.createElement('button');
    tab.type = 'button';
    tab.textContent = image.closest('figure').querySelector('figcaption').textContent;
    tab.addEventListener('click', () => show(k));
    return tab;
  }));
  i = Math.min(i, images.length - 1);
  // The first flick goes to the last picture, the truth; from there to its neighbour.
  shown = i === images.length - 1 ? Math.max(0, i - 1) : images.length - 1;
  show(i);
  fit();
}

// Whole screen pixels per pixel of the largest picture, where it is enlarged.
function fit() {
  const images = buttons(row).map((button) => button.querySelector('img'));
  const width = Math.max(...images.map((image) => image.naturalWidth));
  const height = Math.max(...images.map((image) => image.naturalHeight));
  const ratio = window.devicePixelRatio || 1;
  let scale = Math.min(stage.clientWidth / width, stage.clientHeight / height);
  if (scale * ratio >= 1) scale = Math.floor(scale * ratio) / ratio;
  Array.from(stage.children).forEach((copy, k) => {
    const enlarged = Math.min(width / images[k].naturalWidth, height / images[k].naturalHeight);
    copy.style.width = images[k].naturalWidth * enlarged * scale + 'px';
    copy.style.height = images[k].naturalHeight * enlarged * scale + 'px';
    copy.classList.toggle('pixelated', enlarged * scale >= 1);
  });
}

rows.forEach((strip, r) => buttons(r).forEach((button, i) => {
  button.addEventListener('click', () => {
    viewer.showModal();
    fill(r, i);
    stage.focus();
  });
}));
stage.addEventListener('click', () => show(before));
document.getElementById('viewer-close').addEventListener('click', () => viewer.close());
viewer.addEventListener('close', () => {
  const opened = buttons(row)[shown];
  stage.replaceChildren();
  opened.focus();
});
viewer.addEventListener('keydown', (event) => {
  const moves = {
    ArrowLeft: () => show(shown - 1),
    ArrowRight: () => show(shown + 1),
    ArrowUp: () => fill(row - 1, shown),
    ArrowDown: () => fill(row + 1, shown),
  };
  if (moves[event.key]) {
    event.preventDefault();
    moves[event.key]();
  }
});
window.addEventListener('resize', () => { if (viewer.open) fit(); });
// On paper everything is open.
window.addEventListener('beforeprint', () => {
  document.querySelectorAll('details').forEach((details) => { details.open = true; });
});
