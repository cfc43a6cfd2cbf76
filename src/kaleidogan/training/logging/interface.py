"""What a logger may take besides scalars."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@runtime_checkable
class PictureLogger(Protocol):
    """A logger that takes pictures."""

    def log_picture(self, key: str, pixels: Pixels, step: int) -> None:
        """Record a picture, [h, w, c]."""
        ...


@runtime_checkable
class CheckpointLogger(Protocol):
    """A logger that takes checkpoints."""

    def log_checkpoint(self, path: Path, aliases: Sequence[str]) -> None:
        """Record a checkpoint that was written; `latest`, `best` and `kimg-12.5` are aliases."""
        ...
