"""Attacks the program with random input, each a function of a seed.

    python -m tests.fuzz --minutes=60

A target is a function of a random generator and an empty folder: it makes an input,
gives it to the program, and returns in a word what came of it. Whatever it raises is a
fault. `main` runs targets for as long as is asked for; `test_fuzz.py` runs a few fixed
seeds of each. A fault that is found gets a test with a name where its code is tested.
"""
