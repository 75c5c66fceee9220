"""Measures models and folders of images: every image is recorded, then summarised.

`run` is `--mode=eval` and `--mode=reference`, `sweep` is `--mode=sweep`, and `command`
with `folder_run` is `sr3-evaluate` for any folders of images. `measure` goes over the
images, `scoring` gives numbers for each, `records` stores them, `summary` averages,
`report_writer` writes the report. Start with `run`.
"""
