"""What the training loop costs: a training's wall time a batch against that of the bare networks' steps.

    python benchmarks/loop.py                    # the published DCGAN at 64 px, batch 64

Both do the same arithmetic with the same threads and precision: the bare steps call the game's methods on a
batch that is already there; the loop is Lightning's, with data from shards, the callbacks and the CSV. Ticks
(samples and checkpoints) are left out of the loop's figure and told apart. They take turns, medians compared.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from kaleidogan.data.datamodule import ImageData
from kaleidogan.data.procedural import Gallery
from kaleidogan.training import ema
from kaleidogan.training.callbacks.health import Health
from kaleidogan.training.callbacks.progress import Progress
from kaleidogan.training.callbacks.record import Record
from kaleidogan.training.logging import CSV
from kaleidogan.training.modules import DCGAN
from kaleidogan.training.runs import Run
from kaleidogan.training.trainer import trainer


class Turns(pl.Callback):
    """Times each batch of the loop, and after each runs and times a bare step on a twin of the networks."""

    def __init__(self, twin: DCGAN, real: torch.Tensor, precision: str) -> None:
        self.bare: list[float] = []
        self.loop: list[float] = []
        self._twin, self._real, self._bf16 = twin, real, precision == "bf16-mixed"
        self._optimizers = twin.configure_optimizers()
        twin.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign, assignment]
        self._since = 0.0

    def on_train_epoch_start(self, *args: Any) -> None:
        """Begin to time the first batch."""
        self._since = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:
        """End a batch of the loop, and take a bare step."""
        middle = time.perf_counter()
        self.loop.append(middle - self._since)
        generator, discriminator = self._optimizers
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            self._twin.discriminator_step([(self._real, None)], discriminator)
            self._twin.generator_step([(self._real, None)], generator)
        ema.update(self._twin.average, self._twin.generator, 0.999)
        self._since = time.perf_counter()
        self.bare.append(self._since - middle)


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description="What the training loop costs beside the networks.")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = ImageData(resolution=64, maker=Gallery(num_images=2 * options.batch), root=folder)
        gan, twin = DCGAN(width=options.width), DCGAN(width=options.width)
        run = Run("loop", Path(folder))
        run.folder.mkdir()
        watchers = [Health(), Record(), Progress()]
        lightning = trainer(folder=run.folder, callbacks=watchers, loggers=[CSV(run=run)])
        real = torch.rand(options.batch, 3, 64, 64) * 2 - 1
        turns = Turns(twin, real, str(lightning.precision))
        lightning.callbacks.append(turns)  # type: ignore[attr-defined]
        images = options.batch * options.batches
        data.schedule(batch_sizes=[options.batch], tick=images, stop=images, position=lambda: gan.images_seen)
        lightning.fit_loop.max_epochs = 1
        lightning.fit(gan, datamodule=data)
    bare, loop = (statistics.median(times[3:]) for times in (turns.bare, turns.loop))
    ratios = [a / b for a, b in zip(turns.loop[3:], turns.bare[3:], strict=True)]
    print(f"bare steps {bare * 1e3:.1f} ms, in the loop {loop * 1e3:.1f} ms a batch")
    print(f"overhead: {100 * (statistics.median(ratios) - 1):.1f} % (median of {len(ratios)} pairs)")


if __name__ == "__main__":
    main()
