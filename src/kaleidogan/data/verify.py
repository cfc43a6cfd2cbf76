"""`kaleidogan verify`: reads a whole data set as training would, and says what is lost.

With `keys=N` it lists instead the samples of N global batches, through the loaders that training uses: the
lines are the same for any number of ranks and workers, and from any start.
"""

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from kaleidogan.data.files import DataError, Entry, Files, Remote, hash_file, open_files
from kaleidogan.data.order import Batches, Order
from kaleidogan.data.reader import Reader
from kaleidogan.data.shards import ASPECTS, Index, Sidecar, faults, load_index
from kaleidogan.settings import Count, CountOrZero, Positive, Seed, count_workers


@dataclass
class Findings:
    """What was found in a data set.

    Attributes:
        shards: how many the index lists.
        samples: likewise.
        lost: how many of them cannot be read as they were written.
        errors: what is wrong, a sentence each.
    """

    shards: int = 0
    samples: int = 0
    lost: int = 0
    errors: list[str] = field(default_factory=list)


def verify(
    *,
    path: str,
    keys: Count | None = None,
    ranks: Count = 1,
    workers: CountOrZero = 0,
    batch_size: Count = 32,
    seed: Seed = 0,
    start: CountOrZero = 0,
    mirror: bool = False,
    window: Count = 16,
    num_workers: CountOrZero | None = None,
    cache: str | None = None,
    cache_gb: Positive = 50.0,
    pipe: bool = False,
) -> Findings | None:
    """Read a whole data set as training would: every shard's bytes, and every picture.

    Ends with one line of JSON, {"shards", "samples", "lost", "errors"}, and with status 0 only if nothing is
    lost or wrong. With `keys` it lists the samples of global batches instead, a line each.

    Args:
        path: the data set's folder or address.
        keys: how many global batches to list; null to read the set.
        ranks: among how many processes a global batch is shared.
        workers: data workers of each.
        batch_size: images in a global batch.
        seed: of the order.
        start: the first global batch to list, counted from 0.
        mirror: whether each picture is shown both ways round.
        window: shards whose samples are shuffled among each other.
        num_workers: processes that read the set; null for one a core.
        cache: folder for far shards; null for ~/.cache/kaleidogan.
        cache_gb: what that may hold.
        pipe: whether path may be a command, pipe:COMMAND.

    Returns:
        What was found; None if keys were listed.

    Raises:
        DataError: if anything is lost or wrong, after the line of JSON.
    """
    files = open_files(path, cache=Path(cache) if cache else None, max_bytes=int(cache_gb * 1e9), pipe=pipe)
    if keys is not None:
        index = load_index(files)
        order = Order([shard.samples for shard in index.shards], seed=seed, mirror=mirror, window=window)
        for batch in list_keys(index, order, keys, start, batch_size, ranks, workers):
            print(*batch)
        return None
    findings = inspect(files, count_workers(num_workers))
    print(json.dumps(asdict(findings)))
    if not findings.shards:
        raise DataError(findings.errors[0])
    if findings.lost or findings.errors:
        raise DataError(
            f"{findings.lost} of {findings.samples} samples in '{path}' are lost: {findings.errors[0]}"
            + f" (and {len(findings.errors) - 1} more)" * (len(findings.errors) > 1)
        )
    return findings


def inspect(files: Files, num_workers: int = 0) -> Findings:
    """Read a whole set, with so many processes, and say what is wrong with it."""
    try:
        index = load_index(files, check=False)
    except (OSError, DataError) as error:
        return Findings(errors=[str(error)])
    findings = Findings(len(index.shards), len(index))
    if index.about.aspects is not None:
        findings.errors += _check_aspects(index, index.about.aspects)
    numbers = range(len(index.shards))
    with tqdm(desc="verify", total=len(index), unit="sample", disable=None) as bar:
        for number, (lost, errors) in zip(numbers, _inspections(index, num_workers), strict=True):
            findings.lost += lost
            findings.errors += errors
            bar.update(index.shards[number].samples)
    return findings


def _check_aspects(index: Index, sidecar: Sidecar) -> list[str]:
    """Look at the one file that training does not read."""
    where = f"{index.place}/{ASPECTS}"
    try:
        same = hash_file(index.files.fetch(Entry(ASPECTS, sidecar.bytes, sidecar.sha256))) == sidecar.sha256
    except OSError as error:
        return [f"{where} cannot be read: {error}"]
    return [] if same else [f"{where} is not the one that was written"]


def _inspections(index: Index, num_workers: int) -> Iterator[tuple[int, list[str]]]:
    numbers = range(len(index.shards))
    if min(num_workers, len(numbers)) <= 1:
        yield from map(_Inspection(index), numbers)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, _start_inspection, (index.files,)) as pool:
        yield from pool.map(_inspect_shard, numbers)


class _Inspection:
    """Looks at one shard after another; gives how many samples are lost, and what is wrong."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._faults = {fault.shard: fault for fault in faults(index)}

    def __call__(self, number: int) -> tuple[int, list[str]]:
        shard = self._index.shards[number]
        first = sum(one.samples for one in self._index.shards[:number])
        errors: list[str] = []
        if fault := self._faults.get(number):
            errors.append(fault.message)
        size = self._index.files.size(shard.name)
        if size is not None and size < 0:
            return shard.samples, errors
        files = self._index.files
        try:
            if isinstance(files, Remote):
                files.forget_if_damaged(shard.entry)  # a copy that went bad says nothing of the set
            path = files.fetch(shard.entry)
        except (OSError, DataError) as error:
            return shard.samples, [str(error)]
        reader = Reader(self._index)
        lost = 0
        for sample in range(first, first + shard.samples):
            row = self._index.rows[sample]
            try:
                reader.read(sample)
            except DataError as error:
                lost += 1
                # What lies beyond a cut is told with the cut.
                if size is None or row["offset"] + row["size"] <= size:
                    errors.append(str(error))
        reader.close()
        if size == shard.bytes and not lost and hash_file(path) != shard.sha256:
            errors.append(
                f"{self._index.place}/{shard.name} has another SHA-256 than the index says; "
                f"its pictures are as they were written"
            )
        return lost, errors


_inspection: _Inspection | None = None
"""A worker's own."""


def _start_inspection(files: Files) -> None:
    global _inspection
    _inspection = _Inspection(load_index(files, check=False))


def _inspect_shard(number: int) -> tuple[int, list[str]]:
    assert _inspection is not None
    return _inspection(number)


def list_keys(
    index: Index, order: Order, count: int, start: int, batch_size: int, ranks: int, workers: int
) -> list[list[str]]:
    """List the samples' keys of global batches, read by the loaders of all ranks.

    Args:
        index: the set.
        order: of its samples.
        count: how many batches.
        start: the first.
        batch_size: images in each, over all ranks.
        ranks: how many processes share a batch.
        workers: data workers of each.
    """
    from kaleidogan.data.loading import Pictures, load_batches

    end = (start + count) * batch_size
    parts: list[list[list[int]]] = []
    for rank in range(ranks):
        batches = Batches(
            order,
            batch_sizes=[batch_size],
            position=lambda: start * batch_size,
            tick=end,
            stop=end,
            rank=rank,
            world_size=ranks,
        )
        loader = load_batches(Pictures(index, Reader(index)), batches, workers)
        parts.append([batch["sample"].tolist() for batch in loader])
    return [[f"{number:08d}" for part in shares for number in part] for shares in zip(*parts, strict=True)]
