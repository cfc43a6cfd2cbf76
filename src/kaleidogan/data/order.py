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

    Args:
        samples_per_shard: how many samples each shard holds.
        seed: of the shuffling.
        mirror: whether each sample comes both ways.
        window: shards whose samples are shuffled among each other.
        weights: of each shard's samples, relative to each other; None: all alike. A pass has as many items
            with weights as without.

    Raises:
        ValueError: if there are no samples, or a weight is negative, or all are zero.
    """

    def __init__(
        self,
        samples_per_shard: Sequence[int],
        *,
        seed: int,
        mirror: bool = False,
        window: int = 16,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.num_samples = sum(samples_per_shard)
        if self.num_samples == 0:
            raise ValueError("an order needs at least one sample")
        self._shards = np.repeat(np.arange(len(samples_per_shard)), samples_per_shard)
        self._num_shards = len(samples_per_shard)
        self._weights = None if weights is None else np.repeat(np.asarray(weights, float), samples_per_shard)
        if self._weights is not None and not (self._weights.min() >= 0 < self._weights.max() < np.inf):
            raise ValueError(
                f"data.weights {list(weights or ())[:8]} are not numbers from 0 up, one above it"
            )
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

    def windows(self, position: int) -> Iterator[list[int]]:
        """Shards by window, from the window that a position lies in, without end."""
        number, offset = divmod(position, len(self))
        sample = self._pass(number)[offset] % self.num_samples
        window = int(self._rank(number)[self._shards[sample]]) // self._window
        while True:
            place = self._rank(number) // self._window
            for one in range(window, int(place.max()) + 1):
                yield np.flatnonzero(place == one).tolist()
            number, window = number + 1, 0

    def _stream(self, number: int) -> np.random.Philox:
        # NumPy promises the raw stream of a bit generator for ever, but not what `permutation` makes of it.
        return np.random.Philox(np.random.SeedSequence([self._seed, number]))

    def _rank(self, number: int) -> NDArray[np.int64]:
        """Each shard's place in a pass."""
        raw = self._stream(number).random_raw(self._num_shards)
        return np.argsort(np.argsort(raw, kind="stable"), kind="stable")

    def _shuffle(self, number: int) -> NDArray[np.int64]:
        stream = self._stream(number)
        stream.random_raw(self._num_shards)  # what `_rank` draws
        samples = np.arange(self.num_samples) if self._weights is None else self._draw(stream)
        window = self._rank(number)[self._shards[samples]] // self._window
        items = np.concatenate([samples + copy * self.num_samples for copy in range(self._copies)])
        keys = stream.random_raw(len(self))
        return items[np.lexsort((keys, np.tile(window, self._copies)))]

    def _draw(self, stream: np.random.Philox) -> NDArray[np.int64]:
        """As many samples as there are, each as often as its weight says: systematic sampling.

        A sample of mean weight is there once, one of twice that twice, one of half that in every second
        pass: floor or ceiling of its share, which one depends on a single random number a pass.
        """
        assert self._weights is not None
        shuffled = np.argsort(stream.random_raw(self.num_samples), kind="stable")
        edges = np.cumsum(self._weights[shuffled])
        edges *= self.num_samples / edges[-1]
        edges[-1] = self.num_samples
        start = float(stream.random_raw(1)[0]) / 2**64
        counts = np.diff(np.minimum(np.floor(edges + start), self.num_samples), prepend=0).astype(np.int64)
        return np.sort(np.repeat(shuffled, counts))


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

    Attributes:
        reached: images that were handed out to be read; ahead of those that were seen.
        on_start: called when a tick begins, after the loader's workers were started.

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
                near = max(size // world_size, 1) * world_size
                raise ValueError(
                    f"batch_size {size} cannot be shared equally by {world_size} processes; "
                    f"batch_size={near} can, which is another training"
                )
        self.reached = 0
        self.on_start: Callable[[], object] = int
        self._order = order
        self._batch_sizes = batch_sizes
        self._level = level
        self._position = position
        self._tick = tick
        self._stop = stop
        self._rank = rank
        self._world_size = world_size

    def __iter__(self) -> Iterator[list[int]]:
        self.on_start()
        position = self.reached = self._position()
        end = min((position // self._tick + 1) * self._tick, self._stop)
        batch_size = self._batch_sizes[self._level()]
        share = batch_size // self._world_size
        part = slice(self._rank * share, (self._rank + 1) * share)
        while position < end:
            yield self._order.items(position, batch_size)[part].tolist()
            position = self.reached = position + batch_size

    def __len__(self) -> int:
        """Most batches that a tick can hold; one that continues or ends a training may hold fewer."""
        return -(-self._tick // min(self._batch_sizes))
