"""TensorBoard's event files."""

from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

from kaleidogan.training.logging.interface import Pixels
from kaleidogan.training.runs import Run


class TensorBoard(Logger):
    """TensorBoard: scalars and pictures over the images seen, in `tensorboard/` of the run's folder."""

    def __init__(self, *, run: Run) -> None:
        super().__init__()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "logger=tensorboard needs the package tensorboard: uv sync --extra tensorboard"
            ) from error
        self._run = run
        self._open = partial(SummaryWriter, run.folder / "tensorboard")
        self._writer = self._open()

    @property
    def name(self) -> str:
        """The run's name."""
        return self._run.name

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run.id

    @rank_zero_only
    def cut(self, images: int) -> None:
        """Have TensorBoard drop the points of later images: they come again."""
        self._writer.close()
        self._writer = self._open(purge_step=images + 1)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Record the configuration as text."""
        self._writer.add_text("config", f"```\n{params}\n```")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record a point of each scalar."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)

    @rank_zero_only
    def log_picture(self, key: str, pixels: Pixels, step: int) -> None:
        """Record a picture at the images seen."""
        self._writer.add_image(key, pixels, step, dataformats="HWC")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write out what is left."""
        self._writer.close()
