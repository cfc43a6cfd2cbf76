"""Art with a trained generator: one task of `generate.py` a file."""
