"""Trains: the loop, the step, how the step is spread over devices, what it survives.

`train` reads from top to bottom; `train_step` is what is compiled; `strategies` spread
it over devices. Start with `run`, which is `--mode=train`: train, then evaluate.
"""
