"""Pixels and files: reading, writing, resizing, 16 bits, many channels, contact sheets.

Images are arrays [H, W, C]: uint8 in files, float32 in [-1, 1] for networks.
Start with `image_files` (read and write 8-bit pictures), `pixels` (convert them to
floats and back) and `resizing`. `rasters` reads and writes images of any number of
channels; `sr3-upscale` uses `picture_codec` and `raster_codec`.
"""
