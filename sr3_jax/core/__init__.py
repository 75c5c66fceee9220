"""Holds the method: arXiv:2104.07636 as pure functions of arrays.

Start with `sr3`, the paper in one file: training loss and restoration. `diffusion` has
noise schedules (arrays) and what a network predicts, `samplers` makes a schedule into
sampler coefficients and runs them, `networks/` has the U-Nets, `degradations/` makes
conditions from images.
"""
