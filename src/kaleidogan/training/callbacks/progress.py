"""Progress: one bar in kimg, with images a second and the time left."""

import sys
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm

from kaleidogan.training.gan import GAN

BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}, {rate_fmt}{postfix}"
QUIET_S = 15.0
"""Seconds from line to line where the output is a file, not a terminal."""


class Progress(pl.Callback):
    """Draws the bar on the first rank."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._stop = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the bar where training stands."""
        assert isinstance(pl_module, GAN)
        stop = trainer.datamodule.stop  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            self._stop = stop
            self._bar = tqdm(
                desc=self._words(pl_module.images_seen),
                total=stop,
                initial=pl_module.images_seen,
                unit="img",
                bar_format=BAR,
                mininterval=0.2 if sys.stderr.isatty() else QUIET_S,
                dynamic_ncols=True,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self._bar is not None:
            assert isinstance(pl_module, GAN)
            seen = min(pl_module.images_seen, self._stop)
            if self._bar.update(seen - self._bar.n):
                self._bar.set_description_str(self._words(seen), refresh=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the tick's mean losses beside the bar."""
        if self._bar is not None:
            found = trainer.callback_metrics
            shown = {"D": "loss/discriminator", "G": "loss/generator"}
            self._bar.set_postfix(
                {k: f"{found[v]:.2f}" for k, v in shown.items() if v in found}, refresh=False
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the bar as it stands."""
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the bar as it stands, above the message."""
        self._close()

    def _words(self, seen: float) -> str:
        return f"{seen / 1000:.1f}/{self._stop / 1000:g} kimg"

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.set_description_str(self._words(self._bar.n), refresh=False)
            self._bar.close()
            self._bar = None
