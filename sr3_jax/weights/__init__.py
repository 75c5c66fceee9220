"""Where weights live: checkpoints of runs, model folders, other people's files.

Start with `hub`: it loads a model by name, folder, run or hf:// address. `checkpoint`
is for runs, `model_writer` makes a folder to share, `convert` is `sr3-convert`.
"""
