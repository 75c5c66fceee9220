"""Checks whether a folder is fit to train on: broken files, copies, leaks, advice.

Start with `run`, which is `--mode=check-data`: it lets `scan` check all images and
`near_duplicates` compare them, then writes `findings` and `advice` on a `page`.
"""
