"""A data set's pictures decoded once: a file of bytes that is mapped into memory.

Reading a picture is then a copy, many times as fast as decoding, for h * w * c bytes a picture on disk.
"""

import fcntl
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kaleidogan.data.files import DataError
from kaleidogan.data.reader import Reader
from kaleidogan.data.shards import Index

SPARE = 2**28
"""256 MiB: what is left on the disk at least."""


class Decoded:
    """Reads a set's pictures by number from the file of decoded ones; a `reader.PictureReader`."""

    def __init__(self, index: Index, path: Path) -> None:
        self._path = path
        self._place = index.place
        self._shape = (len(index), *index.resolution, index.channels)
        self._pixels: NDArray[np.uint8] | None = None
        self._lost = frozenset(np.load(path.with_suffix(".lost.npy")).tolist())

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None}

    def read(self, number: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Read one picture, [h, w, c], into `out` if it is given.

        Raises:
            DataError: if it was damaged when the file was made.
        """
        if number in self._lost:
            raise DataError(f"sample {number} in {self._place} was damaged when it was decoded")
        if self._pixels is None:
            self._pixels = np.memmap(self._path, np.uint8, mode="r", shape=self._shape)
        if out is None:
            return self._pixels[number]
        out[:] = self._pixels[number]
        return out


def open_decoded(index: Index, cache: Path, *, skip: bool, num_workers: int | None = None) -> Decoded:
    """Open a set's decoded pictures; they are made when they are first asked for.

    Args:
        index: the set.
        cache: the folder where they are kept, by the set's fingerprint.
        skip: whether damaged samples are left out; else they are an error.
        num_workers: processes that decode; None for one a core.

    Raises:
        OSError: if the disk has too little room; says how much is needed.
        DataError: if a sample is damaged, and `skip` is false.
    """
    path = cache / "decoded" / f"{index.fingerprint[:32]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            lost = _decode_all(index, path.with_suffix(".partial"), skip, num_workers)
            np.save(path.with_suffix(".lost.npy"), np.array(lost, np.int64))
            path.with_suffix(".partial").rename(path)
    decoded = Decoded(index, path)
    if decoded._lost and not skip:
        decoded.read(min(decoded._lost))
    return decoded


def _decode_all(index: Index, path: Path, skip: bool, num_workers: int | None) -> list[int]:
    size = len(index) * int(np.prod(index.resolution)) * index.channels
    if (free := shutil.disk_usage(path.parent).free) < size + SPARE:
        raise OSError(
            f"the decoded pictures of '{index.place}' need {size:,} bytes in '{path.parent}', which has "
            f"{free:,} left; choose another place with data.cache=FOLDER, or set data.decoded=false"
        )
    with path.open("wb") as stream:
        stream.truncate(size)
    workers = min(num_workers or os.cpu_count() or 1, len(index.shards))
    lost: list[int] = []
    task = partial(_decode_shard, index, path, skip)
    with tqdm(desc="decode", total=len(index), unit="picture", disable=None) as bar:
        if workers <= 1:
            for number in range(len(index.shards)):
                lost += task(number)
                bar.update(index.shards[number].samples)
        else:
            with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
                for number, found in enumerate(pool.map(task, range(len(index.shards)))):
                    lost += found
                    bar.update(index.shards[number].samples)
    return lost


def _decode_shard(index: Index, path: Path, skip: bool, number: int) -> list[int]:
    shape = (len(index), *index.resolution, index.channels)
    pixels = np.memmap(path, np.uint8, mode="r+", shape=shape)
    reader = Reader(index)
    first = sum(shard.samples for shard in index.shards[:number])
    lost = []
    for sample in range(first, first + index.shards[number].samples):
        try:
            reader.read(sample, pixels[sample])
        except DataError:
            if not skip:
                raise
            lost.append(sample)
    pixels.flush()
    reader.close()
    return lost
