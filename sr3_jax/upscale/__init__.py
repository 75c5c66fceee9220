"""The command sr3-upscale: options, files, jobs, and the run over them.

Start with `command`: it reads the options, finds the files (`files`, `masks`), plans
what is left to do (`jobs`) and does it with an `Upscaler` (`run`).
"""
