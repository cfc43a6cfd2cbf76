"""Stopping: a signal is noted, the run saved where the step ends, and the command that goes on named."""

import os
import signal
import threading
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl

from kaleidogan.training.callbacks.keep import Keep
from kaleidogan.training.gan import GAN

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):  # noqa: N818 - not an error
    """Training was asked to stop, and was saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Preempt(pl.Callback):
    """Saves at the end of the step in which a signal came, and leaves; a second signal quits at once.

    A handler that saved would do so between two instructions of a step, with one player ahead of the other.

    Args:
        keep: what saves.
    """

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._received: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received = number

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave, if a signal came."""
        if self._received is None:
            return
        assert isinstance(pl_module, GAN)
        now = pl_module.images_seen
        before = now - len(batch["image"]) * trainer.world_size
        if trainer.datamodule.ends_tick(before, now):  # type: ignore[attr-defined]
            return
        self._keep.save(trainer, pl_module)
        self._leave(trainer, self._received)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave after what is due at a tick's end, the save included, if a signal came in its last step."""
        if self._received is not None:
            self._leave(trainer, self._received)

    def _leave(self, trainer: pl.Trainer, number: int) -> NoReturn:
        for logger in trainer.loggers:
            logger.finalize("stopped")
        raise Stopped(number)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen no more."""
        while self._before:
            signal.signal(*self._before.popitem())
