"""The Lightning trainer: which machine, which precision. What it counts and saves is ours."""

import ctypes
import logging
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from kaleidogan.settings import Count


def trainer(
    *,
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto",
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto",
    threads: Count | None = None,
    folder: Path,
    callbacks: list[pl.Callback],
    loggers: list[Any],
) -> pl.Trainer:
    """Make the trainer for this machine.

    Args:
        accelerator: auto takes a GPU where there is one.
        precision: auto takes bf16-mixed where the processor computes with it, else 32-true.
        threads: processor threads; null: as many as there are cores. Results are equal to the bit only at
            equal counts.
        folder: the run's.
        callbacks: what steers and watches.
        loggers: what records.
    """
    quiet_lightning()
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"trainer.accelerator={accelerator}: PyTorch finds no CUDA GPU here; set trainer=auto"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    keep_memory()
    return pl.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=best_precision(accelerator) if precision == "auto" else precision,  # type: ignore[arg-type]
        default_root_dir=folder,
        callbacks=callbacks,
        logger=loggers,
        max_epochs=-1,  # an epoch is a tick; the data ends when all images were shown
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )


def best_precision(accelerator: str) -> Literal["32-true", "bf16-mixed"]:
    """bf16-mixed where the hardware computes with it, else 32-true."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if accelerator != "cpu" and torch.backends.mps.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cpu.get_capabilities().get("avx512_bf16", False) else "32-true"


def keep_memory() -> None:
    """Let the C library keep what tensors free, for the next ones.

    It would give the memory of large ones back to the system at once, and take it again page by page: a tenth
    of StyleGAN2's time in single precision on a processor (benchmarks/stylegan2.py).
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_max = -1, -4  # their numbers in malloc.h
        library.mallopt(trim_threshold, -1)
        library.mallopt(mmap_max, 0)


def quiet_lightning() -> None:
    """Keep Lightning to what a user can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for harmless in (
        ".*in eval mode at the start of training.*",  # the averaged generator, on purpose
        ".*does not have many workers.*",  # none is best on a CPU of few cores
        ".*smaller than the logging interval.*",  # ticks are logged, not steps
        ".*log_every_n_steps.*",
        ".*LeafSpec.*",  # between Lightning and PyTorch
    ):
        warnings.filterwarnings("ignore", harmless)
