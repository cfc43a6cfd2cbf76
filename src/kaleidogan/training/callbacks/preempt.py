"""Stopping: once a signal was noted, the run is saved where the step ends, on all ranks alike."""

import signal
from typing import Any, NoReturn

import pytorch_lightning as pl

from kaleidogan.training import ranks, signals, slurm
from kaleidogan.training.callbacks.keep import Keep
from kaleidogan.training.gan import GAN
from kaleidogan.training.runs import Run


class Stopped(Exception):  # noqa: N818 - not an error
    """Training was asked to stop, and is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Preempt(pl.Callback):
    """Saves at the end of the step in which a signal came, to whichever rank, and leaves.

    Several ranks hear of it at the end of the step after: so none waits for another in between.

    Args:
        keep: what saves.
        run: is told what SLURM does.
    """

    def __init__(self, keep: Keep, run: Run) -> None:
        self._keep = keep
        self._run = run
        self._agreement = ranks.Agreement()
        self._number = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, and leave before the first step if a signal came while the data was made ready."""
        signals.listen()
        if number := self._agreement.settle(signals.received()):
            self._leave(trainer, number)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave, if a signal came; at a tick's end, after what is due there."""
        self._number = self._agreement.reached(signals.received())
        if not self._number:
            return
        assert isinstance(pl_module, GAN)
        now = pl_module.images_seen
        before = now - len(batch["image"]) * trainer.world_size
        if trainer.datamodule.ends_tick(before, now):  # type: ignore[attr-defined]
            return
        self._keep.save(trainer, pl_module)
        self._leave(trainer, self._number)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave after what is due at a tick's end, the save included, if a signal came in its last step."""
        if self._number:
            self._leave(trainer, self._number)

    def _leave(self, trainer: pl.Trainer, number: int) -> NoReturn:
        """Have SLURM start its job again, unless its user has cancelled it; then end the records.

        In this order, since a server may let a logger wait for longer than SLURM does.
        """
        is_sent = number != signal.SIGINT  # Ctrl-C comes from someone who sits there
        if trainer.is_global_zero and is_sent and (job := slurm.job_id()) and not slurm.was_cancelled():
            slurm.requeue()
            self._run.say(f"saved; SLURM starts job {job} again, which goes on by itself")
        for logger in trainer.loggers:
            logger.finalize("stopped")
        raise Stopped(number)
