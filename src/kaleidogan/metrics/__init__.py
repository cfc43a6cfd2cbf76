"""How near a generator's pictures come to the real ones, in numbers."""
