"""Answers whether a run fits a machine, how long it takes, and what it costs.

`programs` compiles for machines that are not here, `hlo*` read the compiled programs,
`roofline` and `estimate` derive times from them, and `measure` runs a few steps on the
machine at hand. Start with `run`, which is `--mode=plan`.
"""
