"""The command sr3-upscale: options, files, jobs, and the run over them.

Start with `command`; `run` does the jobs that `jobs` found, with an `Upscaler`.
"""
