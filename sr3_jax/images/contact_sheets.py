"""Pictures of pictures: contact sheets, and maps of numbers as colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr3_jax.images import pixels

# Ten colours of Matplotlib's viridis (CC0) at equal distances: between two of them
# straight lines are as uniform to the eye as the whole is.
_HEAT = '440154 482878 3e4a89 31688e 26828e 1f9e89 35b779 6dcd59 b4de2c fde725'


def sheet(
  rows: Sequence[Sequence[np.ndarray | None]],
  titles: Sequence[str] | None = None,
  row_labels: Sequence[str] | None = None,
  *,
  cell: int | None = None,
  gutter: int = 4,
) -> np.ndarray:
  """A comparison sheet: pictures in rows, a title above each column.

  Every picture is fitted into a square cell; smaller ones are enlarged by nearest
  neighbour, so that their pixels can be seen, larger ones reduced by area. A row is as
  high as its highest picture.

  Args:
    rows: uint8 images `[H, W, 3]` or `[H, W, 1]` of any sizes; None is an empty cell.
    titles: one a column; None for no line of titles.
    row_labels: one a row, to its left; None for none.
    cell: side of a cell in pixels; None takes a multiple of the largest picture, at
      least 160.
    gutter: white pixels between and around cells.

  Returns:
    uint8 `[H, W, 3]`.

  Raises:
    ValueError: no picture at all.
  """
  pictures = [image for row in rows for image in row if image is not None]
  if not pictures:
    raise ValueError('a sheet needs at least one picture')
  largest = max(max(image.shape[:2]) for image in pictures)
  cell = cell or largest * -(-160 // largest)
  columns = max(len(row) for row in rows)
  font_size = max(11, min(cell // 9, 40))
  margin = font_size // 2

  title_font = _title_font(titles or (), font_size, cell)
  top = font_size + 2 * margin if titles else gutter
  labels = list(row_labels or ())
  label_font = ImageFont.load_default(size=font_size)
  left = gutter
  if labels:
    left = 2 * margin + max(int(label_font.getlength(label)) + 1 for label in labels)

  pitch = cell + gutter
  heights = [_row_height(row, cell) for row in rows]
  tops = np.cumsum([top, *(height + gutter for height in heights)]).tolist()
  height = tops[-1]
  canvas = Image.new('RGB', (left + pitch * columns, height), 'white')
  draw = ImageDraw.Draw(canvas)
  ink = (32, 32, 32)
  for c, title in enumerate(titles or ()):
    at = (left + c * pitch + cell / 2, top / 2)
    draw.text(at, title, ink, font=title_font, anchor='mm')
  for r, row in enumerate(rows):
    if r < len(labels):
      at = (left - margin, tops[r] + heights[r] / 2)
      draw.text(at, labels[r], ink, font=label_font, anchor='rm')
    for c, image in enumerate(row):
      if image is not None:
        fitted = _fit_cell(image, cell)
        x = left + c * pitch + (cell - fitted.width) // 2
        y = tops[r] + (heights[r] - fitted.height) // 2
        canvas.paste(fitted, (x, y))
  return np.array(canvas)


def heat_map(values: np.ndarray, legend: str) -> np.ndarray:
  """A map as `heat_colours`, with a scale and a line of text below.

  Args:
    values: [H, W], not negative.
    legend: what they are.

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
  draw, ink, font = ImageDraw.Draw(canvas), (32, 32, 32), ImageFont.load_default(size)
  y = height + margin + size * 3 // 2
  draw.text((margin, y), '0', ink, font)
  draw.text((length - margin, y), f'{values.max():.3g}', ink, font, anchor='ra')
  draw.text((length / 2, y + size * 5 // 4), legend, ink, font, anchor='ma')
  return np.array(canvas)


def heat_colours(values: np.ndarray) -> np.ndarray:
  """Numbers from 0, dark, to their largest, bright: uint8 [..., 3]."""
  table = np.array([list(bytes.fromhex(colour)) for colour in _HEAT.split()])
  at = np.linspace(0, float(values.max()) or 1.0, len(table))
  channels = [np.interp(values, at, table[:, c]) for c in range(3)]
  return np.round(np.stack(channels, -1)).astype(np.uint8)


def _fitted(image: np.ndarray, cell: int) -> tuple[int, int]:
  """Width and height at which a picture fills a square cell."""
  height, width = image.shape[:2]
  scale = cell / max(height, width)
  return max(1, round(width * scale)), max(1, round(height * scale))


def _row_height(row: Sequence[np.ndarray | None], cell: int) -> int:
  heights = [_fitted(image, cell)[1] for image in row if image is not None]
  return max(heights, default=cell)


def _fit_cell(image: np.ndarray, cell: int) -> Image.Image:
  """A picture at the size at which it fills a square cell."""
  enlarged = cell >= max(image.shape[:2])
  method = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
  return pixels.to_pillow(image).convert('RGB').resize(_fitted(image, cell), method)


def _title_font(
  titles: Sequence[str], font_size: int, cell: int
) -> ImageFont.FreeTypeFont:
  """One font for all titles: smaller if one would run into its neighbour."""
  font = ImageFont.load_default(size=font_size)
  longest = max((font.getlength(title) for title in titles), default=0)
  if longest > cell:
    font = ImageFont.load_default(size=max(7, int(font_size * cell / longest)))
  return font
