"""Checkpoints on disk: tensors and plain values only, written whole or not at all. No Lightning here."""

import contextlib
import hashlib
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

FORMAT = 1
"""The checkpoint's own version number."""
Checkpoint = dict[str, Any]
DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
"""What reading a damaged file raises, depending on which byte is wrong."""


class CheckpointError(ValueError):
    """A file is not a checkpoint that can be read here."""


def save(path: Path, checkpoint: Checkpoint, *, previous: Path | None = None) -> None:
    """Write a checkpoint so that a kill at any moment leaves a whole one.

    It is written beside its target, flushed to the disk, and renamed.

    Args:
        path: the target.
        checkpoint: tensors and plain values.
        previous: where what stands at the target now is moved to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as stream:
            torch.save({"format": FORMAT, **checkpoint}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        aside.replace(path)
        _sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make renames durable: they live in the folder, not in the files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint into CPU memory, without running any code that it may carry.

    Raises:
        CheckpointError: if the file is damaged, is no checkpoint of ours or of another format; names it.
        FileNotFoundError: if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at '{path}'")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"'{path}' cannot be read as a checkpoint: it is cut short, or no checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"'{path}' cannot be read as a checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict) or "format" not in checkpoint:
        raise CheckpointError(f"'{path}' is not a checkpoint of this project")
    if checkpoint["format"] != FORMAT:
        raise CheckpointError(
            f"'{path}' has format {checkpoint['format']}; this version reads format {FORMAT}"
        )
    return checkpoint


def load_newest(paths: list[Path]) -> tuple[Path, Checkpoint] | None:
    """Read the first of some checkpoints that can be read; None if none is there.

    Raises:
        CheckpointError: if some are there and none can be read; says what is wrong with each.
    """
    problems = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            try:
                return path, load(path)
            except CheckpointError as error:
                problems.append(str(error))
    if problems:
        raise CheckpointError("; ".join(problems))
    return None


def digest(path: Path) -> str:
    """SHA-256 of a checkpoint file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
