"""Measures images and sets of images, with formulas and with networks.

`image_metrics` has formulas of one image (PSNR, SSIM, ...), `lpips`, `dists` and
`inception` are networks in JAX, `fid_kid_is` compares sets. Start with `feature_nets`:
it loads the networks.
"""
