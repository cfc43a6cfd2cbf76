"""Which sample stands at each position of a training: a pure function of (seed, pass, position).

A pass is once through the data. Shards are permuted; samples are shuffled within a window of shards, so that
a reader touches few files at a time. Nothing here is drawn as training goes, so a resume continues at the
exact sample, whatever the number of workers.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class Order:
    """The order of a data set's items.

    An item is a sample, or its mirror image: item i is sample i mod n, flipped if i >= n. With `mirror` a
    pass holds each sample both ways.
    """

    def __init__(
        self, samples_per_shard: Sequence[int], *, seed: int, mirror: bool = False, window: int = 16
    ) -> None:
        self.num_samples = sum(samples_per_shard)
        if self.num_samples == 0:
            raise ValueError("an order needs at least one sample")
        self._shards = np.repeat(np.arange(len(samples_per_shard)), samples_per_shard)
        self._num_shards = len(samples_per_shard)
        self._seed = seed
        self._copies = 2 if mirror else 1
        self._window = window
        # A batch may lie across two passes.
        self._pass = lru_cache(maxsize=2)(self._shuffle)

    def __len__(self) -> int:
        """Number of items in a pass."""
        return self.num_samples * self._copies

    def items(self, start: int, count: int) -> NDArray[np.int64]:
        """Items at the positions start ... start + count - 1, which may reach over several passes."""
        parts = []
        while count > 0:
            number, offset = divmod(start, len(self))
            part = self._pass(number)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _shuffle(self, number: int) -> NDArray[np.int64]:
        # NumPy promises the raw stream of a bit generator for ever, but not what `permutation` makes of it.
        stream = np.random.Philox(np.random.SeedSequence([self._seed, number]))
        rank = np.argsort(np.argsort(stream.random_raw(self._num_shards), kind="stable"), kind="stable")
        window = np.tile(rank[self._shards] // self._window, self._copies)
        keys = stream.random_raw(len(self))
        return np.lexsort((keys, window)).astype(np.int64)


class Batches:
    """A batch sampler over an order that goes on where training stands, one tick at a time.

    Args:
        order: which item stands where.
        batch_sizes: images in a global batch, over all ranks, at each level of a growing network.
        level: tells at which training is; asked at the start of each tick.
        position: tells how many images have been seen; asked at the start of each tick.
        tick: images between two ticks; a tick ends with the first batch that reaches a multiple of it.
        stop: images at which training ends.
        rank: this process's number; it takes its equal part of each global batch.
        world_size: number of processes.

    Raises:
        ValueError: if the global batch cannot be divided among the processes.
    """

    def __init__(
        self,
        order: Order,
        *,
        batch_sizes: Sequence[int],
        level: Callable[[], int] = int,
        position: Callable[[], int],
        tick: int,
        stop: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for size in batch_sizes:
            if size % world_size:
                raise ValueError(f"batch_size {size} cannot be shared equally by {world_size} processes")
        self._order = order
        self._batch_sizes = batch_sizes
        self._level = level
        self._position = position
        self._tick = tick
        self._stop = stop
        self._rank = rank
        self._world_size = world_size

    def __iter__(self) -> Iterator[list[int]]:
        position = self._position()
        end = min((position // self._tick + 1) * self._tick, self._stop)
        batch_size = self._batch_sizes[self._level()]
        share = batch_size // self._world_size
        part = slice(self._rank * share, (self._rank + 1) * share)
        while position < end:
            yield self._order.items(position, batch_size)[part].tolist()
            position += batch_size

    def __len__(self) -> int:
        """Most batches that a tick can hold; one that continues or ends a training may hold fewer."""
        return -(-self._tick // min(self._batch_sizes))
