"""The command `sr3-export`: a model as one file that runs without this package."""
