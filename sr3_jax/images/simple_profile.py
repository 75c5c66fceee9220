"""Makes colour profiles from what PNG files say about colours without one.

Formats without gAMA and cHRM can hold the same facts as an ICC profile, of three
primaries (or none, for grey) and a curve, as ICC.1:2001-04 lays it out.
"""

import struct

import numpy as np

# Chromaticities (x, y) of white, red, green and blue: sRGB's, and those of H.273.
SRGB = ((0.3127, 0.3290), (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_PRIMARIES = {
  1: SRGB,
  9: ((0.3127, 0.3290), (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
  11: ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # DCI P3
  12: ((0.3127, 0.3290), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
  [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_LINEAR, _SRGB_CURVE = 8, 13  # transfer functions of H.273


def of_png(colours: dict[bytes, bytes], grey: bool) -> bytes | None:
  """Return the profile that says the same as chunks of a PNG file.

  Args:
    colours: data of chunks by kind; cICP counts before sRGB, and that before gAMA.
    grey: whether pixels are grey.

  Returns:
    The profile; None for sRGB, and where nothing is said.

  Raises:
    ValueError: brightness beyond that of paper (HDR), which a profile can't say.
  """
  if len(code := colours.get(b'cICP', b'')) == 4:
    primaries, curve = code[0], code[1]
    if primaries not in _PRIMARIES or curve not in (1, 6, _LINEAR, _SRGB_CURVE, 14, 15):
      raise ValueError('colours as of a video (cICP)')
    if (primaries, curve) == (1, _SRGB_CURVE):
      return None
    table = _gamma(1.0) if curve == _LINEAR else _srgb_curve()
    return _profile(_PRIMARIES[primaries], table, grey)
  gamma = colours.get(b'gAMA', b'')
  if b'sRGB' in colours or len(gamma) != 4:
    return None
  power = int.from_bytes(gamma) / 100000
  if not 0.1 <= power <= 5:
    return None
  points = SRGB
  if len(stored := colours.get(b'cHRM', b'')) == 32:
    numbers = [n / 100000 for n in struct.unpack('>8I', stored)]
    points = tuple(zip(numbers[::2], numbers[1::2], strict=True))
  usual = all(np.abs(np.subtract(points, SRGB)).ravel() < 0.001)
  if usual and abs(power - 1 / 2.2) < 0.001:
    return None  # what programs write that mean sRGB
  if min(y for _, y in points) <= 0 or np.max(points) > 1:
    return None  # no colours that exist
  try:
    return _profile(points, _gamma(1 / power), grey)
  except (np.linalg.LinAlgError, struct.error):
    return None  # all in one point


def _profile(points: tuple, curve: bytes, grey: bool) -> bytes:
  """Return a profile of white, red, green and blue points, and a curve."""
  white = _xyz(points[0])
  tags = {b'desc': _text('as the PNG file'), b'cprt': b'text\0\0\0\0none\0'}
  tags[b'wtpt'] = _numbers(_D50)
  if grey:
    tags[b'kTRC'] = curve
  else:
    primaries = np.stack([_xyz(point) for point in points[1:]], 1)
    primaries = primaries * np.linalg.solve(primaries, white)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    for name, column in zip((b'r', b'g', b'b'), (adapt @ primaries).T, strict=True):
      tags[name + b'XYZ'], tags[name + b'TRC'] = _numbers(column), curve
  table, body = struct.pack('>I', len(tags)), b''
  start = 128 + 4 + 12 * len(tags)
  for name, data in tags.items():
    table += struct.pack('>4sII', name, start + len(body), len(data))
    body += data + bytes(-len(data) % 4)
  space = b'GRAY' if grey else b'RGB '
  head = struct.pack(
    '>I4sI4s4s4s', start + len(body), b'', 0x02100000, b'mntr', space, b'XYZ '
  )
  head += struct.pack('>6H4s', 2000, 1, 1, 0, 0, 0, b'acsp') + bytes(28)
  head += _numbers(_D50)[8:]
  return head.ljust(128, b'\0') + table + body


def _xyz(point: tuple[float, float]) -> np.ndarray:
  """Return XYZ of a chromaticity, with Y = 1."""
  x, y = point
  return np.array([x / y, 1.0, (1 - x - y) / y])


def _numbers(values: np.ndarray) -> bytes:
  """Return XYZ numbers as a tag."""
  return b'XYZ \0\0\0\0' + struct.pack(
    '>3i', *(round(float(v) * 65536) for v in values)
  )


def _gamma(power: float) -> bytes:
  """Return a curve of a power as a tag."""
  return b'curv\0\0\0\0' + struct.pack('>IH', 1, round(power * 256))


def _srgb_curve() -> bytes:
  """Return sRGB's curve as a table."""
  x = np.arange(1024) / 1023
  y = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
  return (
    b'curv\0\0\0\0'
    + struct.pack('>I', 1024)
    + (y * 65535).round().astype('>u2').tobytes()
  )


def _text(words: str) -> bytes:
  """Return a description as a tag."""
  ascii_ = words.encode() + b'\0'
  return b'desc\0\0\0\0' + struct.pack('>I', len(ascii_)) + ascii_ + bytes(78)
