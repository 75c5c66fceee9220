"""Devices, logs, progress, files written whole, errors, command lines.

Nothing here knows of diffusion or of images. Start with `devices` (one batch over
all devices) and `errors` (what ends a command with one line).
"""
