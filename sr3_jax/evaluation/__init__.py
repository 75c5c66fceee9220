"""Measures models and folders of images: every image recorded, then summarised.

`run` is `--mode=eval`, `sweep` is `--mode=sweep`, `command` is `sr3-evaluate` for any
folders of images. `measure` goes over the images, `scoring` gives numbers for each,
`records` keeps them, `summary` averages. Start with `run`.
"""
