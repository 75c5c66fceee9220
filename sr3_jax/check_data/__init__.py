"""Is a folder fit to train on? Broken files, copies, leaks, and what to begin with.

Start with `run`, which is `--mode=check-data`.
"""
