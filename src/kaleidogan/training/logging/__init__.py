"""Where a training's numbers and pictures are recorded: W&B or its offline fall-back, CSV, TensorBoard.

The x axis is `progress/kimg` everywhere; `step` is the number of images seen.
"""

from kaleidogan.training.logging.csv import CSV
from kaleidogan.training.logging.interface import CheckpointLogger, PictureLogger, Pixels
from kaleidogan.training.logging.tensorboard import TensorBoard
from kaleidogan.training.logging.wandb import Wandb

__all__ = ["CSV", "TensorBoard", "Wandb", "CheckpointLogger", "PictureLogger", "Pixels"]
