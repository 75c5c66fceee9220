"""Reads charts back from their SVG: what has which class, and which values it shows."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable


def read(text: str) -> ET.Element:
  """Return the parsed chart."""
  return ET.fromstring(text)


def of_class(root: ET.Element, name: str) -> list[ET.Element]:
  """Return the groups of a class, in their order."""
  return [node for node in root.iter('g') if name in node.get('class', '').split()]


def numbers(group: ET.Element) -> list[tuple[float, float]]:
  """Return the points (x, y) of a group's only path."""
  (path,) = group.iter('path')
  pairs = re.findall(r'[ML] (-?[\d.]+) (-?[\d.]+)', path.get('d', ''))
  return [(float(x), float(y)) for x, y in pairs]


def markers(root: ET.Element) -> list[tuple[float, float]]:
  """Return the places of all markers, each of which is the use of a shape."""
  shapes = {path.get('id') for path in root.iter('path')}
  uses = [use for group in of_class(root, 'marker') for use in group.iter('use')]
  assert all(use.get('href', '')[1:] in shapes for use in uses)
  return [(float(use.get('x', '')), float(use.get('y', ''))) for use in uses]


def texts(root: ET.Element, name: str) -> list[ET.Element]:
  """Return the text elements of a class."""
  return [text for group in of_class(root, name) for text in group.iter('text')]


def labels(root: ET.Element) -> dict[str, tuple[float, float]]:
  """Return text -> place of the baseline of all labels."""
  return {
    t.text or '': (float(t.get('x', '')), float(t.get('y', '')))
    for t in texts(root, 'label')
  }


def ticks(root: ET.Element, name: str) -> list[tuple[float, float]]:
  """Return (place of the grid line, number at it) of 'xtick' or 'ytick'."""
  found = []
  for group in of_class(root, name):
    (text,) = group.iter('text')
    (place,) = {point[name == 'ytick'] for point in numbers(group)}
    found.append((place, float((text.text or '').replace('−', '-'))))
  return found


def axis(root: ET.Element, name: str) -> Callable[[float], float]:
  """Return the function units -> values of an axis, from two of its ticks."""
  (a, x), *_, (b, y) = ticks(root, name)
  return lambda unit: x + (unit - a) / (b - a) * (y - x)
