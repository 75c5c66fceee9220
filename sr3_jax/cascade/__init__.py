"""Runs several models in a row: the first samples small images, the others upsample.

`cascade` loads and runs the stages, `evaluate` measures them and `report` writes it,
and `search` finds the best augmentation; both measure with `measurement`. Start with
`run`, which is every mode of a configuration with `cascade.stages`.
"""
