"""The game: two players, their losses, and what watches them."""
