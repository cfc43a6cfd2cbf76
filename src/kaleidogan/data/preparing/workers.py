"""Work on many files in parallel, with the results in the files' order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from kaleidogan.data.preparing.pictures import PictureError
from kaleidogan.data.preparing.sources import Source
from kaleidogan.data.preparing.treatment import Skipped

AHEAD = 4
"""How many pictures a worker has in hand or before it: enough to keep it busy, few enough for memory."""
Result = TypeVar("Result")


def read(files: Source, name: str) -> bytes | Skipped:
    """Read one file, or say why that cannot be."""
    try:
        return files.read(name)
    except PictureError as error:
        return Skipped(name, error.reason, error.detail)


def in_order(
    files: Source, names: Sequence[str], work: Callable[[str, bytes], Result], workers: int
) -> Generator[tuple[str, Result | Skipped], None, None]:
    """Read here, work in the workers, and hand out in the order of the names.

    Args:
        files: where the names are read.
        names: of the files.
        work: takes a name and the file's bytes; can be pickled.
        workers: how many processes; 0 and 1 mean this one.

    Raises:
        RuntimeError: if a worker dies; names a file near to it.
    """
    if workers <= 1:
        for name in names:
            data = read(files, name)
            yield name, data if isinstance(data, Skipped) else work(name, data)
        return
    # Spawned, as a fork of a process with threads may hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    waiting: deque[tuple[str, Future[Result | Skipped]]] = deque()
    near = next(iter(names), "")
    try:
        for name in names:
            data = read(files, name)
            future: Future[Result | Skipped] = Future()
            if isinstance(data, Skipped):
                future.set_result(data)
            else:
                future = pool.submit(work, name, data)
            waiting.append((name, future))
            if len(waiting) >= AHEAD * workers:
                near, future = waiting.popleft()
                yield near, future.result()
        while waiting:
            near, future = waiting.popleft()
            yield near, future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"a worker died at '{printable(near)}' or a picture soon after; if the memory was full, "
            f"lower num_workers, else exclude the picture that num_workers=0 dies at"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def printable(name: str) -> str:
    """Make a file name safe to print: archives may hold control characters, and folders broken Unicode."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _start_worker() -> None:
    # An interrupt is the main process's affair, and when that is killed its workers should not outlive it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
