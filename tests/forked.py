"""Ranks of a training as forks of the tests' own process, where PyTorch is imported already."""

import multiprocessing
import os
import re
import socket
import sys
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch

from kaleidogan import cli, config
from kaleidogan.training import play, ranks
from kaleidogan.training.place import find_place


def preload() -> None:
    """Import what a training does, once and not in each fork."""
    for path in (*config.CONF.glob("*/*.yaml"), *config.CONF.glob("*.yaml")):
        for target in re.findall(r"_target_: (kaleidogan\.training\S+)", path.read_text()):
            config.locate(target)
    assert play


def begin(count: int, work: Callable[[int], Any]) -> list[ForkProcess]:
    """Start so many processes that know each other as ranks; each does the work and ends."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    preload()
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=_be_rank, args=(rank, count, port, work)) for rank in range(count)]
    for process in started:
        process.start()
    return started


def _be_rank(rank: int, count: int, port: int, work: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)  # a forked process has none but this one
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, count, rank, count, "127.0.0.1", port)
    os.environ |= dict(zip(names, map(str, values), strict=True))
    work(rank)


def results(count: int, work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What each of so many ranks returns, tensors and plain values."""

    def keep(rank: int) -> None:
        ranks.join(find_place(), 30)
        torch.save(work(rank), folder / f"{rank}.pt")
        ranks.leave()

    for process in begin(count, keep):
        process.join()
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def begin_training(
    folder: Path, count: int, *overrides: str, first: Callable[[int], object] = int
) -> list[ForkProcess]:
    """Run the real `train.py` command in a folder, on so many ranks; what rank n says is in said-n.txt.

    Each does what is to be done first, before that.
    """

    def work(rank: int) -> None:
        os.chdir(folder)
        with (folder / f"said-{rank}.txt").open("a", buffering=1) as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            first(rank)
            cli.run("train", overrides, program="train.py")

    return begin(count, work)


def end(processes: list[ForkProcess], status: int = 0, seconds: float = 100) -> None:
    """Wait for a training's ranks, which should all end with the same status."""
    for process in processes:
        process.join(seconds)
    found = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert found == [status] * len(processes)
