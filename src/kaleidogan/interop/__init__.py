"""Other projects' networks: theirs in, ours out."""
