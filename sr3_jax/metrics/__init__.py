"""Numbers of images and of sets of images, and the networks behind them.

`image_metrics` are formulas of one image (PSNR, SSIM, ...), `lpips` and `inception` are
networks in JAX, `fid_kid_is` compares sets. Start with `feature_nets`: it loads them.
"""
