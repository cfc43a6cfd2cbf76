"""Kaleidogan trains generative adversarial networks on your pictures and makes art with them."""

__version__ = "0.1.0"
