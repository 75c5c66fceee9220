"""Reads what training and evaluation need: sources, folder index, crops, batches.

Start with `input_pipeline`, which makes batches from a configuration. `records` says
what a source is, `sources` makes one by its name, `crops` cuts squares out of its
images, and `batches` stacks them.
"""
