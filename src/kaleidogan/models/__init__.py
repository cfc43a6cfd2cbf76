"""The networks, in plain PyTorch: a whole model in one file."""
