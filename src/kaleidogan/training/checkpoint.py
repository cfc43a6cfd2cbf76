"""Checkpoints on disk: tensors and plain values only, written whole or not at all. No Lightning here.

A file is what `torch.save` writes, a zip archive, whose comment holds the SHA-256 of all bytes before it: a
flipped bit or a missing end is noticed, and PyTorch and Lightning read the file all the same.
"""

import contextlib
import errno
import hashlib
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

FORMAT = 1
"""The checkpoint's own version number."""
Checkpoint = dict[str, Any]
MARK = b"sha256:"
SEAL_BYTES = len(MARK) + 64
"""The zip's comment: the mark, and the hash in hex."""
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
"""What reading a file that is no checkpoint raises, depending on what it is."""


class CheckpointError(ValueError):
    """A file is not a checkpoint that can be read here."""


def save(path: Path, checkpoint: Checkpoint, *, previous: Path | None = None) -> None:
    """Write a checkpoint so that a kill at any moment leaves a whole one.

    It is written beside its target, sealed with its checksum, flushed to the disk, and renamed.

    Args:
        path: the target.
        checkpoint: tensors and plain values.
        previous: where what stands at the target now is moved to.

    Raises:
        OSError: if it cannot be written; names the path, and the bytes needed if the disk is full. What stood
            at the target stands there still.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w+b") as stream:
            torch.save({"format": FORMAT, **checkpoint}, stream)
            _seal(stream)
            stream.flush()
            os.fsync(stream.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        aside.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise _explain(error, path, checkpoint) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _seal(stream: IO[bytes]) -> None:
    """Append the checksum as the archive's comment, whose length the archive's last two bytes announce."""
    stream.seek(-2, os.SEEK_END)
    stream.write(struct.pack("<H", SEAL_BYTES))
    stream.seek(0)
    found = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    stream.seek(0, os.SEEK_END)
    stream.write(MARK + found.encode())


def _explain(error: OSError | RuntimeError, path: Path, checkpoint: Checkpoint) -> OSError:
    """Turn what a failed write raised into words: PyTorch reports a full disk as a RuntimeError."""
    needed = sum(tensor.nbytes for tensor in _tensors(checkpoint))
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed or getattr(error, "errno", None) == errno.ENOSPC:
        return OSError(
            f"the disk is full: '{path}' needs {needed:,} bytes and {free:,} are free; the checkpoint before "
            "is kept. Make room, then start again with the same name to go on"
        )
    return OSError(f"'{path}' cannot be written: {error}")


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for entry in entries for tensor in _tensors(entry)]


def _sync_folder(folder: Path) -> None:
    """Make renames durable: they live in the folder, not in the files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what saves that were killed left beside the checkpoints. Only while no one else writes here."""
    for aside in folder.glob(".*.tmp"):
        aside.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint into CPU memory, without running any code that it may carry.

    Raises:
        CheckpointError: if the file is damaged, is no checkpoint of ours or of another format; names it.
        FileNotFoundError: if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at '{path}'")
    _check_seal(path)
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
    if missing := sorted(FIELDS - checkpoint.keys()):
        raise CheckpointError(f"'{path}' lacks {', '.join(missing)}")
    return checkpoint


FIELDS = {"model", "generator", "hyper_parameters", "state_dict", "optimizers", "random", "config", "data"}
"""What a checkpoint of format 1 cannot do without."""


def _check_seal(path: Path) -> None:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - SEAL_BYTES, 0))
        seal = stream.read()
        if not seal.startswith(MARK):
            raise CheckpointError(f"'{path}' is cut short, or is not a checkpoint of this project")
        stream.seek(0)
        found, left = hashlib.sha256(), size - SEAL_BYTES
        while chunk := stream.read(min(left, 2**20)):
            found.update(chunk)
            left -= len(chunk)
    if seal != MARK + found.hexdigest().encode():
        raise CheckpointError(f"'{path}' is damaged: its checksum does not match")


def load_newest(paths: list[Path]) -> tuple[Path, Checkpoint] | None:
    """Read the first of some checkpoints that can be read, and say so if it is not the first there is.

    Returns:
        The path and the content; None if none is there.

    Raises:
        CheckpointError: if some are there and none can be read; says what is wrong with each.
    """
    problems: list[str] = []
    for path in paths:
        try:
            checkpoint = load(path)
        except FileNotFoundError:
            continue
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            print(f"{problem}; taking '{path}' instead")
        return path, checkpoint
    if problems:
        raise CheckpointError("; ".join(problems))
    return None


def digest(path: Path) -> str:
    """SHA-256 of a checkpoint file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
