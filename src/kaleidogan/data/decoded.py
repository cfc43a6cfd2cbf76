"""A data set's pictures decoded once: a file of bytes that is mapped into memory.

Reading a picture is then a copy, many times as fast as decoding, for h * w * c bytes a picture on disk.
"""

import fcntl
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kaleidogan.data.files import DataError, Files
from kaleidogan.data.reader import Reader
from kaleidogan.data.shards import Index, load_index
from kaleidogan.settings import count_workers

SPARE = 2**28
"""256 MiB: what is left on the disk at least."""


class Decoded:
    """Reads a set's pictures by number from the file of decoded ones; a `reader.PictureReader`.

    What could not be decoded when the file was made is read from its shard: it may have been mended since.
    """

    def __init__(self, index: Index, path: Path) -> None:
        self._reader = Reader(index)
        self._path = path
        self._shape = (len(index), *index.resolution, index.channels)
        self._pixels: NDArray[np.uint8] | None = None
        self._lost = frozenset(np.load(path.with_suffix(".lost.npy")).tolist())

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None}

    def read(self, number: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Read one picture, [h, w, c], into `out` if it is given.

        Raises:
            DataError: if it is damaged; names the sample.
        """
        if number in self._lost:
            return self._reader.read(number, out)
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
        skip: whether damaged samples are left to be found when they are read; else they are an error now.
        num_workers: processes that decode; None for one a core.

    Raises:
        OSError: if the disk has too little room; says how much is needed.
        DataError: if a sample is damaged, and `skip` is false.
    """
    path = cache / "decoded" / f"{index.fingerprint[:32]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    size = len(index) * int(np.prod(index.resolution)) * index.channels
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file() or path.stat().st_size != size:
            partial = path.with_suffix(".partial")
            try:
                lost = _decode_all(index, partial, size, skip, count_workers(num_workers))
                np.save(path.with_suffix(".lost.npy"), np.array(lost, np.int64))
                partial.rename(path)
            finally:
                partial.unlink(missing_ok=True)
    decoded = Decoded(index, path)
    if not skip:
        for number in sorted(decoded._lost):
            decoded.read(number)
    return decoded


def _decode_all(index: Index, path: Path, size: int, skip: bool, workers: int) -> list[int]:
    if (free := shutil.disk_usage(path.parent).free) < size + SPARE:
        raise OSError(
            f"the decoded pictures of '{index.place}' need {size:,} bytes in '{path.parent}', which has "
            f"{free:,} left; choose another place with data.cache=FOLDER, or set data.decoded=false"
        )
    with path.open("wb") as stream:
        # Room is taken now: a mapped file that finds none later kills the process.
        os.posix_fallocate(stream.fileno(), 0, size)
    lost: list[int] = []
    with tqdm(desc="decode", total=len(index), unit="picture", disable=None) as bar:
        for number, found in enumerate(_decoded_shards(index, path, skip, workers)):
            lost += found
            bar.update(index.shards[number].samples)
    return lost


def _decoded_shards(index: Index, path: Path, skip: bool, workers: int) -> Iterator[list[int]]:
    numbers = range(len(index.shards))
    if min(workers, len(numbers)) <= 1:
        yield from map(_Decoding(index, path, skip), numbers)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_decoding, (index.files, path, skip)) as pool:
        yield from pool.map(_decode_shard, numbers)


class _Decoding:
    """Decodes one shard after another; gives the samples that could not be."""

    def __init__(self, index: Index, path: Path, skip: bool) -> None:
        self._index = index
        self._skip = skip
        self._pixels = np.memmap(
            path, np.uint8, mode="r+", shape=(len(index), *index.resolution, index.channels)
        )
        self._first = np.cumsum([0, *(shard.samples for shard in index.shards)]).tolist()

    def __call__(self, number: int) -> list[int]:
        reader = Reader(self._index)
        lost = []
        for sample in range(self._first[number], self._first[number + 1]):
            try:
                reader.read(sample, self._pixels[sample])
            except DataError:
                if not self._skip:
                    raise
                lost.append(sample)
        reader.close()
        return lost


_decoding: _Decoding | None = None
"""A worker's own."""


def _start_decoding(files: Files, path: Path, skip: bool) -> None:
    global _decoding
    _decoding = _Decoding(load_index(files, check=False), path, skip)


def _decode_shard(number: int) -> list[int]:
    assert _decoding is not None
    return _decoding(number)
