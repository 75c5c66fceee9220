"""A model at work on arrays: batches of one size, and pictures of any size.

Start with `upscaler`, which `sr3_jax.load` returns: it restores pictures of any size as
tiles on a canvas (`inputs`, `settings`, `tiling`, `canvas_runner`, `canvas`).
`restorer` restores batches of one size, for evaluation and sampling.
"""
