"""What it costs to train with several ranks: time in synchronisation, and against PyTorch's DDP.

    python benchmarks/ranks.py                   # StyleGAN2-ADA at 64 px, two ranks of one core each

Three ways, each in processes of its own that run at the same time on a core each, with the same share of a
batch: "alone" tell each other nothing, so they pay for the machine they share and for no synchronisation;
"ours" averages gradients once a step; "ddp" is Lightning's DDP strategy, which has to search each backward
pass for the parameters that it did not reach. They take turns, medians are compared.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy

from kaleidogan.training import ranks
from kaleidogan.training.augment.ada import ADA
from kaleidogan.training.gan import GAN
from kaleidogan.training.modules import StyleGAN2ADA
from kaleidogan.training.place import find_place
from kaleidogan.training.trainer import best_precision, trainer

WARM = 3


class Watch(pl.Callback):
    """Times each batch, and what of it is spent on telling the other ranks."""

    def __init__(self) -> None:
        self.batches: list[float] = []
        self.told: list[float] = []
        self._since = time.perf_counter()
        self._spent = 0.0
        average = ranks.average

        def timed(tensors: Any) -> None:
            began = time.perf_counter()
            average(tensors)
            self._spent += time.perf_counter() - began

        ranks.average = timed

    def on_train_batch_start(self, *args: Any) -> None:
        """Begin to time."""
        self._since, self._spent = time.perf_counter(), 0.0

    def on_train_batch_end(self, *args: Any) -> None:
        """End a batch."""
        self.batches.append(time.perf_counter() - self._since)
        self.told.append(self._spent)

    def on_train_epoch_end(self, lightning: pl.Trainer, *args: Any) -> None:
        """Once through the data."""
        lightning.should_stop = True


def play(way: str, count: int, batch: int, batches: int, resolution: int) -> None:
    """Be one rank; print the median of a batch and of what was told."""
    place = find_place()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gan: GAN = StyleGAN2ADA(resolution=resolution, batch_size=batch * count, augment=ADA())
    loader = torch.utils.data.DataLoader(
        [{"image": torch.rand(batch, 3, resolution, resolution) * 2 - 1} for _ in range(batches + WARM)],
        batch_size=None,
    )
    watch = Watch()
    precision = best_precision("cpu")
    with TemporaryDirectory() as folder:
        if way == "ddp":
            lightning = pl.Trainer(
                accelerator="cpu",
                devices=count,
                strategy=DDPStrategy(find_unused_parameters=True, process_group_backend="gloo"),
                plugins=[TorchElasticEnvironment()],
                precision=precision,
                default_root_dir=folder,
                callbacks=[watch],
                **dict.fromkeys(
                    ("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False
                ),
            )
            ranks.average = lambda tensors: None
        else:
            if way == "ours":
                ranks.join(place, 100)
            lightning = trainer(
                accelerator="cpu",
                precision=precision,
                threads=1,
                folder=Path(folder),
                callbacks=[watch],
                loggers=[],
            )
        lightning.fit(gan, loader)
    # A batch in which all penalties are due is rarer than one without; medians are of the latter.
    print(statistics.median(watch.batches[WARM:]), statistics.median(watch.told[WARM:]))


def start(way: str, options: argparse.Namespace) -> list[float]:
    """Run one way; the first rank's medians, in seconds."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    started = []
    for rank in range(options.ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": options.ranks, "LOCAL_WORLD_SIZE": 1}
        more = {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        command = [sys.executable, __file__, "--way", way, *options.given]
        environment = {**os.environ, **{key: str(value) for key, value in more.items()}}
        started.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    said = [process.communicate() for process in started]
    if any(process.returncode for process in started):
        sys.exit(said[0][1])
    return [float(word) for word in said[0][0].split()[-2:]]


def main() -> None:
    """Print what a batch takes each way."""
    parser = argparse.ArgumentParser(description="What several ranks cost.")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4, help="images a rank")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--way", choices=("alone", "ours", "ddp"))
    options = parser.parse_args()
    options.given = sys.argv[1:]
    if options.way:
        play(options.way, options.ranks, options.batch, options.batches, options.resolution)
        return
    found: dict[str, list[list[float]]] = {"alone": [], "ours": [], "ddp": []}
    for _ in range(options.turns):
        for way, each in found.items():
            each.append(start(way, options))
    medians = {way: statistics.median(batch for batch, _ in each) for way, each in found.items()}
    for way, each in found.items():
        told = statistics.median(told for _, told in each)
        more = medians[way] / medians["alone"] - 1
        spent = f"{told * 1000:.0f} ms telling the others"
        print(f"{way:<6} {medians[way] * 1000:7.0f} ms a batch, {more:+.1%}; {spent}")


if __name__ == "__main__":
    main()
