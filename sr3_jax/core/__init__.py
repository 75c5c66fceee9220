"""The method: arXiv:2104.07636 as pure functions of arrays.

`sr3` is the paper in one file: training loss and restoration. `diffusion` has noise
schedules (arrays), `samplers` turns a schedule into coefficients and runs them,
`networks/` holds the U-Nets, `degradations/` what makes an input from an image.
"""
