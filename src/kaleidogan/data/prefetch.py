"""Far shards are had before they are needed: those of the window that is being read, and of the next."""

import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from tqdm import tqdm

from kaleidogan.data.files import DataError, Entry, Remote
from kaleidogan.data.order import Order
from kaleidogan.data.shards import Index

WINDOWS = 2
"""How many windows of shards are kept: the one that is read and the one that comes."""
CONNECTIONS = 4
ROUND = 1.0
"""Seconds between two looks at where the reading stands."""


def check_room(index: Index, window: int) -> None:
    """See whether the cache holds what is read at a time.

    Raises:
        ValueError: if not; says what it would take.
    """
    assert isinstance(index.files, Remote)
    sizes = sorted((shard.bytes for shard in index.shards), reverse=True)
    needed = sum(sizes[: WINDOWS * window])
    if needed > index.files.max_bytes:
        raise ValueError(
            f"data.cache_gb={index.files.max_bytes / 1e9:g} is too little: {WINDOWS} windows of {window} "
            f"shards of '{index.place}' take {needed / 1e9:.3g} GB; set data.cache_gb={needed / 1e9:.3g} or "
            f"more, or a smaller data.window (which is another order)"
        )


def fetch_first(index: Index, order: Order, position: int) -> None:
    """Have the shards of the window that a position lies in; what fails is left to who reads it."""
    assert isinstance(index.files, Remote)
    entries = [index.shards[shard].entry for shard in next(order.windows(position))]
    missing = [entry for entry in entries if not index.files.is_cached(entry)]
    size = sum(entry.bytes for entry in missing)
    if missing:
        with tqdm(desc="fetch", total=size, unit="B", unit_scale=True, disable=None) as bar:
            _fetch(index.files, missing, bar.update, threading.Event())


def _fetch(
    files: Remote, entries: list[Entry], done: Callable[[int], object], ended: threading.Event
) -> None:
    """Have some files, a few at a time, until it is ended: what is on its way then is left to itself."""
    waiting = iter(entries)
    lock = threading.Lock()

    def work() -> None:
        while not ended.is_set():
            with lock:
                entry = next(waiting, None)
            if entry is None:
                return
            # The reader meets an error too, and knows whether it matters.
            with suppress(OSError, DataError):
                files.fetch(entry)
                done(entry.bytes)

    # Daemons: the end of a training does not wait for a shard that it will not read.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(CONNECTIONS, len(entries)))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and not ended.wait(0.05):
        pass


class Prefetch(threading.Thread):
    """Goes before the reading, as a daemon, and keeps what is needed from being the cache's oldest.

    Args:
        index: the set.
        order: in which it is read.
        reached: tells up to which position items were handed out.
    """

    def __init__(self, index: Index, order: Order, reached: Callable[[], int]) -> None:
        super().__init__(name="prefetch", daemon=True)
        self._index = index
        self._order = order
        self._reached = reached
        self._ended = threading.Event()

    def start_once(self) -> None:
        """Start it, unless it runs."""
        if self.ident is None and not self._ended.is_set():
            self.start()

    def run(self) -> None:
        """Look, fetch, wait, until `close` is called."""
        while not self._ended.wait(ROUND):
            for shards in islice(self._order.windows(self._reached()), WINDOWS):
                assert isinstance(self._index.files, Remote)
                entries = [self._index.shards[shard].entry for shard in shards]
                _fetch(self._index.files, entries, int, self._ended)

    def close(self) -> None:
        """End it; a shard that is on its way is left to itself."""
        self._ended.set()
