"""Draws pictures of pictures: contact sheets, and maps of numbers as colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr3_jax.images import pixels

# Ten colours of Matplotlib's viridis (CC0) at equal distances. Straight lines between
# neighbours look as uniform to the eye as the whole colour map does.
_HEAT = '440154 482878 3e4a89 31688e 26828e 1f9e89 35b779 6dcd59 b4de2c fde725'
_INK = (32, 32, 32)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def sheet(
  rows: Sequence[Sequence[np.ndarray | None]],
  titles: Sequence[str] | None = None,
  row_labels: Sequence[str] | None = None,
  *,
  cell: int | None = None,
  gutter: int = 4,
) -> np.ndarray:
  """Draw a comparison sheet: pictures in rows, with a title above each column.

  Every picture is fitted into a square cell. A smaller one is upsampled by nearest
  neighbour, so that its pixels can be seen; a larger one is downsampled by area. A row
  is as high as its highest picture.

  Args:
    rows: uint8 images `[H, W, 3]` or `[H, W, 1]` of any sizes; None is an empty cell.
    titles: one for each column; None leaves the line of titles out.
    row_labels: one for each row, drawn to its left; None leaves them out.
    cell: side of a cell in pixels; None takes a multiple of the largest picture, at
      least 160.
    gutter: white pixels between and around cells.

  Returns:
    uint8 `[H, W, 3]`.

  Raises:
    ValueError: there is no picture at all.
  """
  sides = [max(image.shape[:2]) for row in rows for image in row if image is not None]
  if not sides:
    raise ValueError('a sheet needs at least one picture')
  titles, labels, largest = titles or (), row_labels or (), max(sides)
  cell = cell or largest * -(-160 // largest)
  font_size = max(11, min(cell // 9, 40))
  margin = font_size // 2
  label_font = ImageFont.load_default(size=font_size)

  left, top = gutter, gutter
  if titles:
    top = font_size + 2 * margin
  if labels:
    left = 2 * margin + max(int(label_font.getlength(label)) + 1 for label in labels)
  lefts = [left + i * (cell + gutter) for i in range(max(map(len, rows)) + 1)]
  fitted = [[_fit_cell(image, cell) for image in row] for row in rows]
  heights = [max((one.height for one in row if one), default=cell) for row in fitted]
  tops = np.cumsum([top, *(height + gutter for height in heights)]).tolist()

  canvas = Image.new('RGB', (lefts[-1], tops[-1]), 'white')
  draw = ImageDraw.Draw(canvas)
  title_font = _title_font(titles, font_size, cell)
  for x, title in zip(lefts, titles, strict=False):
    draw.text((x + cell / 2, top / 2), title, _INK, font=title_font, anchor='mm')
  for y, height, label in zip(tops, heights, labels, strict=False):
    at = (left - margin, y + height / 2)
    draw.text(at, label, _INK, font=label_font, anchor='rm')
  for y, height, row in zip(tops, heights, fitted, strict=False):
    for x, one in zip(lefts, row, strict=False):
      if one:
        canvas.paste(one, (x + (cell - one.width) // 2, y + (height - one.height) // 2))
  return np.array(canvas)


def heat_map(values: np.ndarray, legend: str) -> np.ndarray:
  """Draw a map as `heat_colours`, with a scale and a line of text below.

  Args:
    values: [H, W], not negative.
    legend: what the values are.

  Returns:
    uint8 [H + scale, max(W, 260), 3].
  """
  height, width = values.shape
  size = max(11, min(width // 40, 40))
  margin, length = size // 2, max(width, 260)
  bar = np.tile(np.linspace(0, 1, length - 2 * margin), (size, 1))
  canvas = Image.new('RGB', (length, height + 4 * size + 3 * margin), 'white')
  canvas.paste(Image.fromarray(heat_colours(values)), (0, 0))
  canvas.paste(Image.fromarray(heat_colours(bar)), (margin, height + margin))
  draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
  y = height + margin + size * 3 // 2
  draw.text((margin, y), '0', _INK, font)
  draw.text((length - margin, y), f'{values.max():.3g}', _INK, font, anchor='ra')
  draw.text((length / 2, y + size * 5 // 4), legend, _INK, font, anchor='ma')
  return np.array(canvas)


def heat_colours(values: np.ndarray) -> np.ndarray:
  """Turn numbers [...] into colours uint8 [..., 3]: 0 is dark, the largest bright."""
  table = np.array([list(bytes.fromhex(colour)) for colour in _HEAT.split()])
  at = np.linspace(0, float(values.max()) or 1.0, len(table))
  channels = [np.interp(values, at, table[:, c]) for c in range(3)]
  return np.round(np.stack(channels, -1)).astype(np.uint8)


def _fit_cell(image: np.ndarray | None, cell: int) -> Image.Image | None:
  """Resize a picture so that it fills a square cell; leave an empty cell empty."""
  if image is None:
    return None
  largest = max(image.shape[:2])
  height, width = (max(1, round(cell * side / largest)) for side in image.shape[:2])
  method = Image.Resampling.NEAREST if cell >= largest else Image.Resampling.BOX
  return pixels.to_pillow(image).convert('RGB').resize((width, height), method)


def _title_font(titles: Sequence[str], font_size: int, cell: int) -> Font:
  """Return one font for all titles, small enough that none touches its neighbour."""
  font = ImageFont.load_default(size=font_size)
  longest = max((font.getlength(title) for title in titles), default=0)
  if longest > cell:
    font = ImageFont.load_default(size=max(7, int(font_size * cell / longest)))
  return font
