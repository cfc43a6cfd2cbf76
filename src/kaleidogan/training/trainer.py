"""The Lightning trainer: which machine, which precision. What it counts and saves is ours."""

import ctypes
import logging
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor

from kaleidogan.settings import Count, Positive, count_workers
from kaleidogan.training import ranks
from kaleidogan.training.place import Place, find_place


def trainer(
    *,
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto",
    devices: Literal["auto"] | Count = 1,
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto",
    threads: Count | None = None,
    timeout: Positive = 600.0,
    folder: Path,
    callbacks: list[pl.Callback],
    loggers: list[Any],
) -> pl.Trainer:
    """Make the trainer for this machine.

    Args:
        accelerator: auto takes a GPU where there is one.
        devices: GPUs of this machine to train on, or processes on a processor; auto: all GPUs. Under torchrun
            and srun each task is a rank, whatever this says.
        precision: auto takes bf16-mixed where the processor computes with it, else 32-true.
        threads: processor threads; null: a rank's share of the cores. Results are equal to the bit only at
            equal counts.
        timeout: seconds that a rank waits for another before the training ends with an error.
        folder: the run's.
        callbacks: what steers and watches.
        loggers: what records.
    """
    quiet_lightning()
    place = find_place()
    if threads is None and place.local_size > 1:
        threads = max(1, count_workers(None) // place.local_size)
    if threads is not None:
        torch.set_num_threads(threads)
    keep_memory()
    device = find_device(accelerator, place)
    made = pl.Trainer(
        accelerator=device.type,
        devices=[device.index] if device.index is not None else 1,
        strategy=Ranks(device, place),
        # What SLURM sets is read by `ranks`; a job is requeued by `play`.
        plugins=[LightningEnvironment()],
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
    # Lightning's own handler of SIGTERM talks to the other ranks in the midst of whatever they do.
    made._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return made


def find_device(accelerator: str, place: Place) -> torch.device:
    """Find this rank's device.

    Raises:
        ValueError: if there is none.
    """
    count = torch.cuda.device_count() if accelerator != "cpu" else 0
    if accelerator in ("gpu", "cuda") and not count:
        raise ValueError(
            f"trainer.accelerator={accelerator}: PyTorch finds no CUDA GPU here; set trainer=auto"
        )
    if count:
        # A batch system may show each task its own GPU only, as number 0.
        if place.local_size > count > 1:
            raise ValueError(f"{place.local_size} ranks on this machine, and it has {count} GPUs")
        return torch.device("cuda", place.local_rank % count)
    if accelerator != "cpu" and torch.backends.mps.is_available() and place.size == 1:
        return torch.device("mps", 0)
    return torch.device("cpu")


def count_devices(accelerator: str, devices: Literal["auto"] | int) -> int:
    """How many processes of this machine train.

    Raises:
        ValueError: if there are not as many GPUs.
    """
    there = torch.cuda.device_count() if accelerator != "cpu" else 0
    if devices == "auto":
        return max(1, there)
    if there and devices > there:
        raise ValueError(f"trainer.devices={devices}: there are {there} GPUs; set trainer.devices=auto")
    return devices


class Ranks(SingleDeviceStrategy):
    """One device a process. The GAN averages gradients itself, once a step (`ranks.average`).

    Lightning's DDP would search the networks in every backward pass for parameters without a gradient, and
    there always are some: each player's, while the other learns.
    """

    def __init__(self, device: torch.device, place: Place) -> None:
        super().__init__(device)
        self.global_rank, self.local_rank, self.world_size = place.rank, place.local_rank, place.size
        self.node_rank = place.rank // place.local_size
        rank_zero_only.rank = place.rank  # type: ignore[attr-defined]

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the first rank."""
        return self.global_rank == 0

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """The mean of a tensor over all ranks, or the sum or what else PyTorch reduces by."""
        if not isinstance(tensor, Tensor):
            return tensor
        return ranks.mean(tensor) if reduce_op == "mean" else ranks.combine(tensor, reduce_op)

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the others."""
        ranks.gather(None)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """What the first rank has."""
        return ranks.broadcast(obj)


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
        ".*sync_dist=True.*",  # the ranks' scalars are averaged before they are logged
        ".*srun. command is available.*",
    ):
        warnings.filterwarnings("ignore", harmless)
