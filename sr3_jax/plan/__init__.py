"""Does a run fit a machine, how long does it take, what does it cost?

`programs` compiles for machines that are not here, `hlo*` read the compiled programs,
`roofline` and `estimate` make times of them. Start with `run`, which is `--mode=plan`.
"""
