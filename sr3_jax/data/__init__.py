"""What training and evaluation read: sources, folder index, crops, batches.

Start with `input_pipeline`, which makes batches from a configuration; `sources` names
the places images come from, `batches` cuts and stacks them.
"""
