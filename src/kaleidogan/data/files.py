"""Where a data set's files are: in a folder, or far away and kept in a bounded cache on disk.

What comes from afar is named by the SHA-256 that the set's index gives and is checked against it, so a cache
serves any number of sets, processes and runs, and a file in it is whole or not there.
"""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar, runtime_checkable

from kaleidogan.data.transport import GONE, PIPE, SCHEMES, Transport, is_remote, open_transport

INDEX = "index.json"
MAX_INDEX = 2**28
"""256 MiB: what an index may hold before it is refused; a shard takes about 200 bytes of it."""
LONGEST_PAUSE = 30.0
ABANDONED = 24 * 3600.0
"""Seconds after which a file that was not loaded to its end is no longer waited for."""
Result = TypeVar("Result")


class DataError(ValueError):
    """A data set is not what its index says."""


@dataclass(frozen=True)
class Entry:
    """A file as the index promises it: its name, size in bytes and SHA-256."""

    name: str
    bytes: int
    sha256: str


@runtime_checkable
class Files(Protocol):
    """A data set's files."""

    @property
    def place(self) -> str:
        """The folder or address, as the user gave it."""
        ...

    def read_index(self) -> bytes:
        """Read `index.json`."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file; -1 if it is missing; None if one would have to ask over a network."""
        ...

    def fetch(self, entry: Entry) -> Path:
        """Have a file on this machine, and say where."""
        ...


@dataclass(frozen=True)
class Folder:
    """Files in a folder of this machine."""

    folder: Path

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.folder)

    def read_index(self) -> bytes:
        """Read `index.json`.

        Raises:
            FileNotFoundError: says how a data set is made.
        """
        path = self.folder / INDEX
        if not path.is_file():
            raise FileNotFoundError(
                f"no data set in '{self.folder}' (there is no {INDEX}); "
                f"make one from pictures: kaleidogan prepare source=PICTURES out={self.folder} resolution=64"
            )
        return path.read_bytes()

    def size(self, name: str) -> int | None:
        """Bytes of a file; -1 if it is missing."""
        path = self.folder / name
        return path.stat().st_size if path.is_file() else -1

    def fetch(self, entry: Entry) -> Path:
        """Say where the file is; what it holds is checked as it is read."""
        return self.folder / entry.name


@dataclass(frozen=True)
class Patience:
    """How long to wait for a far file.

    Attributes:
        timeout: seconds without a connection or a byte before an attempt is given up.
        retries: attempts after the first failure; each goes on where the last one broke off.
        pause: seconds before the first retry; each next one waits twice as long, 30 s at most.
    """

    timeout: float = 30.0
    retries: int = 8
    pause: float = 0.5


@dataclass
class Remote:
    """Files at an address, http(s)://, s3:// or gs://, or from a command (`pipe:`), by way of a cache.

    Attributes:
        place: the address of the set's folder.
        cache: the folder where files are kept; processes and runs may share it.
        max_bytes: what the cache may hold; the files that were used longest ago go first.
        patience: timeouts and retries.
    """

    place: str
    cache: Path
    max_bytes: int
    patience: Patience = field(default_factory=Patience)
    _transport: tuple[int, Transport] | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_transport": None}

    def read_index(self) -> bytes:
        """Read `index.json`; it is asked for anew at each start.

        Raises:
            OSError: if it cannot be had; FileNotFoundError if there is none.
        """
        return self._retry(INDEX, lambda: self._open().read(INDEX, MAX_INDEX))

    def size(self, name: str) -> int | None:
        """None: a file's size is checked when it comes."""
        return None

    def is_cached(self, entry: Entry) -> bool:
        """Whether a file is here already."""
        return (self.cache / entry.sha256).is_file()

    def fetch(self, entry: Entry) -> Path:
        """Have a file in the cache; one process loads it while others wait.

        Raises:
            OSError: if it cannot be had after all retries.
            DataError: if what comes is twice not what the index promises.
        """
        target = self.cache / entry.sha256
        with suppress(FileNotFoundError):
            if target.stat().st_size == entry.bytes:
                os.utime(target)  # used now, so not the next to go
                return target
            target.unlink()
        self.cache.mkdir(parents=True, exist_ok=True)
        aside = self.cache / f".{entry.sha256}.{entry.bytes}.partial"
        with _locked(aside) as partial:
            if target.is_file():
                aside.unlink()  # who had the lock before has loaded it
            else:
                self._make_room()
                self._load(entry, partial)
                aside.rename(target)
        return target

    def forget_if_damaged(self, entry: Entry) -> bool:
        """Look whether a file in the cache is still what came; if not, remove it, so that it comes anew."""
        path = self.cache / entry.sha256
        if not path.is_file() or hash_file(path) == entry.sha256:
            return False
        path.unlink(missing_ok=True)
        return True

    def _load(self, entry: Entry, partial: BinaryIO) -> None:
        for _ in range(2):
            if partial.seek(0, os.SEEK_END) > entry.bytes:
                partial.truncate(0)
            self._retry(entry.name, lambda: self._open().copy(entry.name, entry.bytes, partial))
            if hash_file(Path(partial.name)) == entry.sha256:
                os.fsync(partial.fileno())
                return
            partial.truncate(0)
        raise DataError(f"{self.place}/{entry.name} came twice with another SHA-256 than the index gives")

    def _retry(self, name: str, action: Callable[[], Result]) -> Result:
        for attempt in range(self.patience.retries + 1):
            try:
                return action()
            except GONE as error:
                raise type(error)(f"'{self.place}' gives no {name}: {error}") from error
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise OSError(
                        error.errno, f"the cache '{self.cache}' has no space left for {name}"
                    ) from error
                if attempt == self.patience.retries:
                    tries = f"{attempt + 1} attempt{'s' * (attempt > 0)}"
                    raise OSError(f"'{self.place}' gives no {name} after {tries}: {error}") from error
            time.sleep(min(self.patience.pause * 2**attempt, LONGEST_PAUSE))
        raise AssertionError("the last attempt returns or raises")

    def _make_room(self) -> None:
        """Let the files go that were used longest ago; who has one open goes on reading it.

        What is being loaded, by whomever, counts with the size that it will have: its name says it.
        """
        with _locked(self.cache / ".lock"):
            kept, size = [], 0
            for path in self.cache.iterdir():
                # Another process may have been quicker.
                with suppress(FileNotFoundError):
                    status = path.stat()
                    if path.name.endswith(".partial"):
                        if time.time() - status.st_mtime > ABANDONED:
                            path.unlink()
                        else:
                            size += int(path.name.split(".")[2])
                    elif not path.name.startswith("."):
                        kept.append((status.st_mtime_ns, status.st_size, path))
                        size += status.st_size
            for _, bytes_, path in sorted(kept):
                if size <= self.max_bytes:
                    return
                path.unlink(missing_ok=True)
                size -= bytes_

    def _open(self) -> Transport:
        # A connection does not survive a fork: each process has its own.
        if self._transport is None or self._transport[0] != os.getpid():
            self._transport = (os.getpid(), open_transport(self.place, self.patience.timeout))
        return self._transport[1]


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open a file that only one process has at a time; the lock goes when the process does."""
    while True:
        stream = path.open("a+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Who held it before may have renamed it: then it is another file now, or none.
            if _is_at(path, stream):
                yield stream
                return
        finally:
            stream.close()


def _is_at(path: Path, stream: BinaryIO) -> bool:
    try:
        return os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def default_cache() -> Path:
    """Find the user's cache folder, `~/.cache/kaleidogan` unless XDG_CACHE_HOME says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaleidogan"


def open_files(
    place: str,
    *,
    cache: Path | None = None,
    max_bytes: int = 50 * 10**9,
    patience: Patience | None = None,
    pipe: bool = False,
) -> Files:
    """Find a data set's files by its folder or address.

    Args:
        place: a folder, an address of `transport.SCHEMES`, or `pipe:COMMAND` with {} for a file's name.
        cache: where far files are kept; None for `default_cache`.
        max_bytes: what the cache may hold.
        patience: timeouts and retries for far files.
        pipe: whether commands may be run.

    Raises:
        ValueError: if a command is asked for and may not be run.
    """
    scheme, colons, _ = place.partition("://")
    if colons and not is_remote(place):
        raise ValueError(f"'{place}': {scheme}:// is none of {', '.join(f'{s}://' for s in SCHEMES)}")
    if not is_remote(place):
        return Folder(Path(place).expanduser())
    if place.startswith(PIPE) and not pipe:
        raise ValueError(
            f"'{place}' would run a command; if that is what you want, set pipe=true "
            f"(in a training, data.pipe=true)"
        )
    return Remote(place, (cache or default_cache()) / "files", max_bytes, patience or Patience())
