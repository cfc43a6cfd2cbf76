"""Health: gradient norms, memory, and numbers that are no numbers."""

import resource
import sys
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from kaleidogan.settings import Count
from kaleidogan.training.gan import GAN

LOOK_EVERY = 32
"""Batches between two looks at a GPU's count: each look waits for it."""


class DivergedError(ValueError):
    """Losses or gradients were NaN or infinite too often in a row."""


class Health(pl.Callback):
    """Logs each player's gradient norm and the memory, counts NaN and Inf, and stops when they stay.

    Args:
        patience: batches in a row with a NaN or an infinity in a loss or gradient before training stops.
    """

    def __init__(self, *, patience: Count = 16) -> None:
        self._patience = patience
        self._players: dict[int, str] = {}
        self._norms: dict[str, Tensor] = {}
        self._in_a_row = torch.zeros((), dtype=torch.int64)
        self._bad = torch.zeros((), dtype=torch.bool)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Learn whose optimiser is whose."""
        names = ("gradient/generator", "gradient/discriminator")
        self._players = {id(o): name for o, name in zip(trainer.optimizers, names, strict=True)}
        self._in_a_row, self._bad = self._in_a_row.to(pl_module.device), self._bad.to(pl_module.device)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure the norm of the gradients that are about to be applied."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self._norms[self._players[id(optimizer)]] = norm
        self._bad = self._bad | ~norm.isfinite()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hand the norms on to be logged, and stop when NaN and Inf stay."""
        assert isinstance(pl_module, GAN)
        losses = [value for key, value in outputs.items() if key.startswith(("loss/", "penalty/"))]
        bad = self._bad | ~torch.stack(losses).isfinite().all()
        self._in_a_row = (self._in_a_row + 1) * bad
        self._bad = torch.zeros_like(bad)
        outputs.update(self._norms, **{"health/nonfinite": bad.float()})
        self._norms = {}  # the generator may take no step in the next batch
        if pl_module.device.type == "cpu" or pl_module.batches_seen % LOOK_EVERY == 0:
            self._judge(pl_module)

    def _judge(self, gan: GAN) -> None:
        if (row := int(self._in_a_row)) >= self._patience:
            raise DivergedError(
                f"the last {row} batches, up to {gan.images_seen / 1000:g} kimg, had NaN or Inf in a loss or "
                "a gradient; the last checkpoint before is kept. Lower model.learning_rate, or set "
                "trainer.precision=32-true, and start again with the same name and allow_changes=[model]"
            )


def memory() -> dict[str, float]:
    """Peak memory so far, in GB: of this process, and of the GPU where there is one."""
    # Kilobytes on Linux, bytes on macOS.
    unit = 1e9 if sys.platform == "darwin" else 1e6
    found = {"memory/process_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if torch.cuda.is_available():
        found["memory/gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def is_finite(gan: GAN) -> bool:
    """Whether all weights are numbers."""
    return all(bool(tensor.isfinite().all()) for tensor in gan.parameters())
