"""What the tests share: a tiny data set, and the real commands on tiny settings."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before anything reads them: no test may reach W&B's server, or ask for a key.
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_ERROR_REPORTING"] = "false"

import numpy as np
import pytest
import torch
import yaml

import slurm_lab
from kaleidogan import cli
from kaleidogan.config import CONF, TARGET, read_signature
from kaleidogan.data import shards
from kaleidogan.data.writing import write

TINY = (
    "resolution=16",
    "batch_size=8",
    "kimg=0.048",
    "tick_kimg=0.016",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "callbacks.samples.rows=3",
)
"""A training of six batches in three ticks."""
SMALL = {"width": 4, "latent_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8}
"""What makes a model small, of the settings that it has."""


def small(model: str) -> list[str]:
    """Settings that make a model of the group `model` small."""
    target = yaml.safe_load((CONF / "model" / f"{model}.yaml").read_text())
    takes = read_signature(target.get("model", target)[TARGET]).parameters
    return [f"model.{key}={value}" for key, value in SMALL.items() if key in takes]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Results are equal to the bit only at equal numbers of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blobs(count: int, size: int = 16, channels: int = 3, seed: int = 0) -> list[np.ndarray]:
    """Pictures that differ: a bright square somewhere on a dark ground."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        picture = np.full((size, size, channels), rng.integers(0, 60, channels), np.uint8)
        top, left = rng.integers(0, size // 2, 2)
        picture[top : top + size // 2, left : left + size // 2] = rng.integers(120, 255, channels)
        pictures.append(picture)
    return pictures


def write_set(
    path: Path, count: int = 20, size: int = 16, channels: int = 3, per_shard: int = 6
) -> shards.Index:
    """Write a small data set of blobs, labelled 0, 1, 2 in turn."""
    samples = (
        shards.Sample(shards.encode(picture, "png"), (size, size), label=number % 3)
        for number, picture in enumerate(blobs(count, size, channels))
    )
    description = shards.Description(resolution=(size, size), channels=channels, label_names=("a", "b", "c"))
    return write(path, samples, description, per_shard)


def write_conditions(path: Path, values: list[tuple[float, float]]) -> shards.Index:
    """Write a small data set of blobs with two numbers each: `oil` and `year`."""
    samples = [
        shards.Sample(shards.encode(picture, "png"), (16, 16), condition=value)
        for picture, value in zip(blobs(len(values)), values, strict=True)
    ]
    return write(path, samples, shards.Description(resolution=(16, 16), condition_names=("oil", "year")), 3)


@pytest.fixture
def train(folder: Path) -> Callable[..., Path]:
    """Run the real `train.py` command on a tiny set; returns the run's folder."""

    def start(*overrides: str, name: str = "tiny", model: str = "dcgan") -> Path:
        if not (folder / "set").exists():
            write_set(folder / "set")
        settings = [*TINY, f"model={model}", *small(model), "data=shards", "data.path=set", f"name={name}"]
        settings += [] if any(o.startswith("logger=") for o in overrides) else ["logger=csv"]
        cli.run("train", [*settings, *overrides], program="train.py")
        return folder / "runs" / name

    return start


@pytest.fixture(scope="session")
def slurm() -> Iterator[slurm_lab.Lab]:
    """A real SLURM of two nodes on this machine."""
    if missing := slurm_lab.missing():
        pytest.skip(f"no {', '.join(missing)} on this machine: install slurm-wlm and munge")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own folders have names too long for a socket
    lab = slurm_lab.Lab(folder)
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()
        shutil.rmtree(folder, ignore_errors=True)
