"""Runs several models in a row: the first samples small images, the others upsample.

`cascade` loads and runs the stages, `evaluate` measures them, `report` writes what was
measured, and `search` finds the best augmentation. Start with `run`, which is every
mode of a configuration with `cascade.stages`.
"""
