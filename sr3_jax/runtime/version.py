"""The version of the package, as setup.py, model folders and records have it."""

__version__ = '0.1.0'
