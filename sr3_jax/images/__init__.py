"""Pixels and files: reading, writing, resizing, 16 bits, many channels, contact sheets.

Images are arrays [H, W, C]: uint8 in files, float32 in [-1, 1] for networks.
Start with `image_files` (read, write) and `pixels` (from bytes to floats and back).
"""
