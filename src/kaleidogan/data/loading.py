"""Items -> batches, in data workers: what is damaged is replaced and told, or an error."""

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from kaleidogan.data.files import DataError
from kaleidogan.data.order import Batches
from kaleidogan.data.reader import PictureReader, ShardError
from kaleidogan.data.shards import Index, faults

Lost = tuple[int, str, bool]
"""A sample that could not be read, why, and whether its whole shard is gone."""
Batch = dict[str, Any]
"""Tensors by name, and under `lost` what could not be read, a list of `Lost`."""


class Pictures(Dataset[Batch]):
    """A data set's items by number, a whole batch at a time.

    A batch has `image`, uint8 [n, c, h, w] with channels last in memory; `label` [n], -1 for none;
    `condition` [n, c_dim] where the set has one; `sample` [n], the numbers of the samples that it shows; and
    `lost`, what was found damaged while it was read.

    Args:
        index: the set.
        reader: reads its pictures.
        skip: whether another sample takes the place of a damaged one, always the same: the next that is
            not; else it is an error.
        lost: [n] bool, samples that are known to be lost and need not be tried.
    """

    def __init__(
        self,
        index: Index,
        reader: PictureReader,
        skip: bool = False,
        lost: NDArray[np.bool_] | None = None,
    ) -> None:
        self._reader = reader
        self._shape = (*index.resolution, index.channels)
        self._labels = torch.from_numpy(index.rows["label"].astype(np.int64))
        self._count = len(self._labels)
        self._conditions = None if index.conditions is None else torch.from_numpy(standardized(index))
        self._skip = skip
        self._lost = lost

    def __len__(self) -> int:
        """Number of samples."""
        return self._count

    def __getitem__(self, item: int) -> Batch:
        batch = self.__getitems__([item])
        return {key: value[0] for key, value in batch.items() if key != "lost"}

    def __getitems__(self, items: list[int]) -> Batch:
        """Read a batch.

        Raises:
            DataError: if a sample is damaged and not to be skipped, or all are.
        """
        image = torch.empty((len(items), *self._shape), dtype=torch.uint8)
        out = image.numpy()
        shown: list[int] = []
        lost: list[Lost] = []
        for place, item in enumerate(items):
            flip, sample = divmod(item, self._count)
            shown.append(self._read(sample, out[place], lost))
            if flip:
                out[place] = out[place, :, ::-1].copy()
        sample_numbers = torch.tensor(shown)
        batch = {
            "image": image.permute(0, 3, 1, 2),
            "label": self._labels[sample_numbers],
            "sample": sample_numbers,
            "lost": lost,
        }
        if self._conditions is not None:
            batch["condition"] = self._conditions[sample_numbers]
        return batch

    def _read(self, sample: int, out: NDArray[np.uint8], lost: list[Lost]) -> int:
        """Read a sample, or the one that takes its place, and say which it was."""
        if not self._skip:
            self._reader.read(sample, out)
            return sample
        for number in range(sample, sample + self._count):
            number %= self._count
            if self._lost is not None and self._lost[number]:
                continue
            try:
                self._reader.read(number, out)
                return number
            except DataError as error:
                lost.append((number, str(error), isinstance(error, ShardError)))
        raise DataError("no sample of the data set can be read")


def scales(index: Index) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find what brings the columns of a set's conditions to mean 0 and standard deviation 1.

    Columns of zeros and ones, as several labels a picture make, are to stay as they are.

    Returns:
        What to subtract, and then to divide by.
    """
    assert index.conditions is not None
    values = index.conditions.astype(np.float64)
    flags = np.isin(values, (0, 1)).all(axis=0)
    deviation = values.std(axis=0)
    return np.where(flags, 0, values.mean(axis=0)), np.where(flags | (deviation == 0), 1, deviation)


def standardized(index: Index) -> NDArray[np.float32]:
    """Scale the columns of a set's conditions, see `scales`."""
    assert index.conditions is not None
    mean, scale = scales(index)
    return ((index.conditions - mean) / scale).astype(np.float32)


class Losses:
    """Counts the samples of a set that could not be read, and stops when there are too many.

    Args:
        index: the set.
        limit: share of its samples that may be lost.
        say: is told what all ranks see, which is what is wrong at the start.
        tell: is told of each that this rank meets.

    Raises:
        DataError: if more are lost than that, now or later.
    """

    def __init__(
        self, index: Index, limit: float, say: Callable[[str], None], tell: Callable[[str], None]
    ) -> None:
        self.lost = np.zeros(len(index), bool)
        self._index = index
        self._limit = limit
        self._tell = tell
        for fault in faults(index):
            say(fault.message + "; they are skipped (data.on_error=skip)" * (fault.lost > 0))
            rows = index.rows["shard"] == fault.shard
            size = index.files.size(index.shards[fault.shard].name) or 0
            self.lost |= rows & (index.rows["offset"] + index.rows["size"] > size)
        self._check()

    def add(self, found: list[Lost]) -> None:
        """Count what was found damaged; a shard that is gone takes all its samples with it."""
        for number, reason, is_shard in found:
            if self.lost[number]:
                continue
            rows = self._index.rows["shard"] == self._index.rows[number]["shard"]
            self.lost |= rows if is_shard else np.arange(len(rows)) == number
            what = f"its {int(rows.sum())} samples are skipped" if is_shard else "skipped"
            self._tell(f"{reason}; {what}")
        if found:
            self._check()

    def merge(self, lost: NDArray[np.bool_]) -> None:
        """Count what the other ranks have found, too."""
        self.lost |= lost
        self._check()

    def _check(self) -> None:
        count = int(self.lost.sum())
        if count > self._limit * len(self._index):
            raise DataError(
                f"{count} of {len(self._index)} samples in '{self._index.place}' are lost "
                f"({count / len(self._index):.1%}), more than data.max_lost={self._limit:g} allows; "
                f"`kaleidogan verify path={self._index.place}` names them all"
            )


def load_batches(
    pictures: Pictures, batches: Batches, num_workers: int, pin_memory: bool = False
) -> DataLoader[Batch]:
    """Make the loader of one rank's part of each global batch; one iteration is a tick."""
    return DataLoader(
        pictures,
        batch_sampler=batches,  # type: ignore[arg-type]  # lists of items, one a batch, without end
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # what `__getitems__` made is a batch
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=_ignore_signals,
        pin_memory=pin_memory,
        # A generator of its own: starting an iteration draws nothing from the training's random numbers.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _ignore_signals(worker: int) -> None:
    """Leave a stop to the main process, which still wants the rest of its batch."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def to_float(image: torch.Tensor) -> torch.Tensor:
    """Map uint8 0 ... 255 to float -1 ... 1."""
    return image.float().mul_(1 / 127.5).sub_(1)
