"""A model at work on arrays: batches of one size, and pictures of any size.

`restorer` restores batches for evaluation and sampling; `upscaler` restores pictures of
any size, in tiles on one canvas. Start with `upscaler`, which `sr3_jax.load` returns.
"""
