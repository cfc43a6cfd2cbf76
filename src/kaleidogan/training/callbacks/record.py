"""Scalars: the mean of each over a tick, with the speed, to every logger."""

import time
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
from torch import Tensor

from kaleidogan.training.callbacks.health import memory
from kaleidogan.training.gan import GAN
from kaleidogan.training.logging import CSV, TensorBoard, Wandb


@runtime_checkable
class Measure(Protocol):
    """A callback with scalars of its own at the end of a tick: asked for here, so that a tick is one row."""

    def measure(self, trainer: pl.Trainer, gan: GAN) -> dict[str, float]:
        """Return them; none, if no measurement is due."""
        ...


class Record(pl.Callback):
    """Averages what each batch returned and logs it at the end of the tick, at `progress/kimg`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._tick_began = (0.0, 0)

    def state_dict(self) -> dict[str, Any]:
        """The sums of a tick that is under way, so that an interruption leaves its means as they would be."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the sums of an interrupted tick."""
        self._sums, self._counts = state_dict["sums"], state_dict["counts"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cut what was logged after the checkpoint that training goes on from; tell W&B what was before."""
        assert isinstance(pl_module, GAN)
        self._sums = {key: value.to(pl_module.device) for key, value in self._sums.items()}
        for logger in trainer.loggers:
            if isinstance(logger, CSV | TensorBoard):
                logger.cut(pl_module.images_seen)
        told = [logger for logger in trainer.loggers if isinstance(logger, CSV)]
        for logger in trainer.loggers:
            if told and isinstance(logger, Wandb):
                logger.replay(told[0].rows(), pl_module.images_seen)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a tick."""
        assert isinstance(pl_module, GAN)
        self._tick_began = (time.perf_counter(), pl_module.images_seen)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a batch's scalars, on the device: reading them here would wait for it."""
        for key, value in outputs.items():
            self._sums[key] = self._sums[key] + value if key in self._sums else value
            self._counts[key] = self._counts.get(key, 0) + 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the tick's means."""
        assert isinstance(pl_module, GAN)
        began, images_before = self._tick_began
        scalars = {key: (value / self._counts[key]).item() for key, value in self._sums.items()}
        seconds = time.perf_counter() - began
        num_items = trainer.datamodule.num_items  # type: ignore[attr-defined]
        scalars = {
            "progress/kimg": pl_module.images_seen / 1000,
            "progress/passes": pl_module.images_seen / num_items,
            **scalars,
            "speed/images_per_second": (pl_module.images_seen - images_before) / seconds,
            **memory(),
            **trainer.datamodule.measure(),  # type: ignore[attr-defined]
        }
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Measure):
                scalars |= callback.measure(trainer, pl_module)
        self._sums, self._counts = {}, {}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=pl_module.images_seen)
        # Lightning's own store, which its other callbacks and the sweepers read.
        pl_module.log_dict(scalars, logger=False)
