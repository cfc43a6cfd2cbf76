"""`generate.py`: find a trained generator and give it a task."""

from pathlib import Path
from typing import Any, Literal

import torch

from kaleidogan.config import build
from kaleidogan.sampling import Trained, load_generator
from kaleidogan.settings import CountOrZero, Seeds
from kaleidogan.training import runs


def generate(
    *,
    task: dict[str, Any],
    checkpoint: str | None,
    out: str | None,
    seeds: Seeds,
    psi: float,
    label: CountOrZero | str | None,
    condition: dict[str, float] | None,
    device: Literal["auto", "cpu", "cuda", "mps"],
    debug: bool = False,
) -> None:
    """Make pictures with a trained generator.

    Args:
        task: what to make.
        checkpoint: a .ckpt file or a run's folder; null: the newest of all runs.
        out: folder for the pictures; null: `generated/` in the run's folder.
        seeds: one picture each, e.g. 0-35 or 1,5,20-30; a seed's picture is the same in every call.
        psi: truncation: 1 as trained, towards 0 more alike and typical, above 1 wilder.
        label: of a model with classes, the class's number or name; null: each seed's in turn.
        condition: of a model that was trained on numbers, those that matter, e.g. condition.year=1890.
        device: auto takes a GPU where there is one.
        debug: show where an error comes from.
    """
    paths = runs.find_checkpoints(Path(checkpoint)) if checkpoint else runs.newest_checkpoints()
    trained = load_generator(paths, best_device() if device == "auto" else device)
    folder = Path(out) if out is not None else default_folder(trained.path)
    print(f"'{trained.path}' at {trained.images_seen / 1000:g} kimg, on {trained.device}")
    build(task, trained=trained, folder=folder)


def best_device() -> str:
    """A GPU where there is one, else the processor."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def default_folder(checkpoint: Path) -> Path:
    """`generated/` in the folder of the run that a checkpoint belongs to, or beside a single file."""
    is_run = checkpoint.parent.name == "checkpoints"
    return (checkpoint.parent.parent if is_run else checkpoint.parent) / "generated"


def provenance(trained: Trained, seed: int, **settings: Any) -> dict[str, Any]:
    """What a picture's text chunk says of how it was made."""
    return {"seed": seed, "checkpoint": trained.digest, "settings": settings}
