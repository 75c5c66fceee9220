"""Several models in a row: the first draws or enlarges, the others enlarge further.

`cascade` loads and runs the stages. Start with `run`, which is every mode of a
configuration with `cascade.stages`.
"""
