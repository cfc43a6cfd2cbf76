"""Samples: the same latents at every tick, and the reals once, as grids to look at."""

from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from kaleidogan.sampling import Pixels, grid, latents, save_png, synthesize, to_uint8
from kaleidogan.settings import Count
from kaleidogan.training.augment.ada import ADA
from kaleidogan.training.gan import GAN
from kaleidogan.training.logging import PictureLogger

WIDEST = 1920
"""A grid shows fewer pictures rather than grow wider or higher than this, in pixels."""


class Samples(pl.Callback):
    """Saves a grid to `samples/` at every tick, the reals at the start, and both side by side at the end.

    Args:
        rows: of the grid, and columns; the pictures are those of seeds 0, 1, 2 ...
        augmented: also save what ADA makes of the reals at p = 0, 0.2 ... 1, a row each.
    """

    def __init__(self, *, rows: Count = 8, augmented: bool = False) -> None:
        self._rows = rows
        self._augmented = augmented
        self._reals: Pixels | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the reals, and what the generator makes before it has learnt."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, GAN)
        reals = trainer.datamodule.reals(self._columns(pl_module) ** 2)  # type: ignore[attr-defined]
        if self._augmented:
            augmented = augmented_reals(pl_module, reals)
            save_png(_folder(trainer) / "augmented.png", augmented)
            _log(trainer, "samples/augmented", augmented, pl_module.images_seen)
        self._reals = grid([to_uint8(real) for real in reals], self._columns(pl_module))
        path = _folder(trainer) / "reals.png"
        if not path.exists():
            save_png(path, self._reals)
            _log(trainer, "samples/reals", self._reals, pl_module.images_seen)
        if pl_module.images_seen == 0:
            self._save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show what the generator makes now."""
        if trainer.is_global_zero:
            assert isinstance(pl_module, GAN)
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show reals and samples side by side."""
        if not trainer.is_global_zero or self._reals is None:
            return
        assert isinstance(pl_module, GAN)
        samples = self._sheet(pl_module)
        line = np.full((samples.shape[0], 16, samples.shape[2]), 255, np.uint8)
        rows = min(samples.shape[0], self._reals.shape[0])
        both = np.concatenate([self._reals[:rows], line[:rows], samples[:rows]], axis=1)
        save_png(_folder(trainer) / "reals-and-samples.png", both)
        _log(trainer, "samples/reals_and_samples", both, pl_module.images_seen)

    def _columns(self, gan: GAN) -> int:
        """As many as asked for, but no wider than a screen."""
        largest = max(gan.generator.image_shape[1:])  # type: ignore[arg-type, index]
        return max(1, min(self._rows, WIDEST // largest))

    def _sheet(self, gan: GAN) -> Pixels:
        columns = self._columns(gan)
        z = latents(range(columns**2), gan.generator.latent_dim)  # type: ignore[arg-type]
        c = gan.trainer.datamodule.conditions(len(z))  # type: ignore[attr-defined]
        pictures = [to_uint8(picture) for picture in synthesize(gan.average, z, c)]
        # A growing network's small ones are shown as large as the last will be.
        factor = gan.generator.image_shape[1] // pictures[0].shape[0]  # type: ignore[index, operator]
        return grid([picture.repeat(factor, 0).repeat(factor, 1) for picture in pictures], columns)

    def _save(self, trainer: pl.Trainer, gan: GAN) -> None:
        sheet = self._sheet(gan)
        save_png(_folder(trainer) / f"kimg-{gan.images_seen / 1000:010.3f}.png", sheet)
        _log(trainer, "samples/fakes", sheet, gan.images_seen)


def augmented_reals(gan: GAN, reals: Tensor) -> Pixels:
    """What ADA makes of some reals, a row for each p from 0 to 1; the training's random numbers stay put."""
    ada = next((part for part in gan.augment.modules() if isinstance(part, ADA)), None)
    if ada is None:
        raise ValueError("callbacks.samples.augmented=true needs augment=ada")
    shown, before = reals[:8].to(gan.device), ada.p.clone()
    pictures: list[Pixels] = []
    devices = [gan.device] if gan.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        for p in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
            ada.p.fill_(p)
            pictures += [to_uint8(picture) for picture in ada(shown)]
    ada.p.copy_(before)
    return grid(pictures, columns=len(shown))


def _folder(trainer: pl.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "samples"


def _log(trainer: pl.Trainer, key: str, pixels: Pixels, step: int) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, PictureLogger):
            logger.log_picture(key, pixels, step)
