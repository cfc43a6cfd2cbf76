"""How a file comes from afar: through fsspec's file systems, or from a command's output.

A transport does one attempt; `files.Remote` decides about the next. What is loaded goes on where the last
attempt broke off, by ranges, if the server knows them.
"""

import logging
import os
import select
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, runtime_checkable

CHUNK = 2**22
"""4 MiB: what one request asks for, and what is at most loaded twice after a broken connection."""
HARD_LIMIT = 10
"""A request may take so many times the timeout, even if a byte comes now and then."""
SCHEMES = ("http", "https", "s3", "gs", "gcs")
PIPE = "pipe:"
GONE = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
"""What another attempt would not mend."""
REFUSED = (401, 403, 410)
"""The statuses of which the same holds."""


@runtime_checkable
class Transport(Protocol):
    """Reads files of one place, one attempt a call; failures are OSErrors."""

    def read(self, name: str, limit: int) -> bytes:
        """Read a whole small file; more than `limit` bytes are refused."""
        ...

    def copy(self, name: str, size: int, stream: BinaryIO) -> None:
        """Append to the stream what it lacks of a file of so many bytes."""
        ...


def is_remote(place: str) -> bool:
    """Whether a data set's place is an address or a command, and not a folder."""
    return place.startswith(PIPE) or place.partition("://")[0] in SCHEMES


def open_transport(place: str, timeout: float) -> Transport:
    """Make the transport that a place asks for.

    Raises:
        ValueError: if what speaks the scheme is not installed; with the remedy.
    """
    if place.startswith(PIPE):
        return Pipe(place.removeprefix(PIPE), timeout)
    scheme = place.partition("://")[0]
    import fsspec

    try:
        # Instances are cached by fsspec and do not survive a fork.
        system = fsspec.filesystem(scheme, skip_instance_cache=True, **_options(scheme, timeout))
    except ImportError as error:
        extra = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}.get(scheme, "http")
        raise ValueError(
            f"'{place}' needs a package that is not installed ({error}); "
            f"uv sync --extra {extra}, or pip install 'fsspec[{extra}]'"
        ) from error
    return Network(system, place, timeout)


def _options(scheme: str, timeout: float) -> dict[str, Any]:
    if scheme in ("http", "https"):
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
        return {"client_kwargs": {"timeout": limits}}
    if scheme == "s3":
        # Endpoint and keys come from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID ...); where they
        # were found is not worth a line a process.
        logging.getLogger("aiobotocore").setLevel(logging.WARNING)
        once = {"max_attempts": 1}  # `files.Remote` tries again
        return {"config_kwargs": {"connect_timeout": timeout, "read_timeout": timeout, "retries": once}}
    return {}


@dataclass
class Network:
    """Files of a place that fsspec knows how to reach."""

    system: Any
    place: str
    timeout: float

    def read(self, name: str, limit: int) -> bytes:
        """See `Transport`."""
        data = self._request(name)
        if len(data) > limit:
            raise OSError(f"it has more than {limit:,} bytes")
        return data

    def copy(self, name: str, size: int, stream: BinaryIO) -> None:
        """See `Transport`."""
        while (start := stream.seek(0, os.SEEK_END)) < size:
            wanted = min(CHUNK, size - start)
            data = self._request(name, start, start + wanted)
            if len(data) == size != wanted:
                # The server knows no ranges, and sent everything.
                stream.truncate(0)
            elif len(data) != wanted:
                raise OSError(f"{len(data):,} bytes came where {wanted:,} were asked for")
            stream.write(data)
            stream.flush()

    def _request(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        path = f"{self.place.rstrip('/')}/{name}"
        try:
            if not getattr(self.system, "async_impl", False):
                return self.system.cat_file(path, start=start, end=end)  # type: ignore[no-any-return]
            from fsspec.asyn import sync

            limit = HARD_LIMIT * self.timeout
            read = self.system._cat_file
            return sync(self.system.loop, read, path, start=start, end=end, timeout=limit)
        except OSError:
            raise
        # Every file system has errors of its own, which have no common ancestor.
        except Exception as error:
            if "Credentials" in type(error).__name__:
                raise PermissionError(
                    f"{error}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for "
                    f"what is open to all"
                ) from error
            if getattr(error, "status", None) in REFUSED:
                raise PermissionError(f"status {error.status}: {error}") from error  # type: ignore[attr-defined]
            raise OSError(f"{type(error).__name__} {error}".strip()) from error


@dataclass
class Pipe:
    """Files from a command's output, such as `rclone cat remote:set/{}`; `{}` stands for the file's name.

    The command is started as it is, without a shell.
    """

    command: str
    timeout: float

    def read(self, name: str, limit: int) -> bytes:
        """See `Transport`."""
        parts: list[bytes] = []
        self._run(name, limit, parts.append)
        return b"".join(parts)

    def copy(self, name: str, size: int, stream: BinaryIO) -> None:
        """See `Transport`; a command begins from the start again."""
        stream.truncate(0)
        self._run(name, size, stream.write)
        if (found := stream.seek(0, os.SEEK_END)) != size:
            raise OSError(f"the command gave {found:,} bytes, not {size:,}")

    def _run(self, name: str, limit: int, take: Callable[[bytes], object]) -> None:
        words = [word.replace("{}", name) for word in shlex.split(self.command)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            count = 0
            try:
                while True:
                    if not select.select([process.stdout], [], [], self.timeout)[0]:
                        raise OSError(f"the command gave nothing for {self.timeout:g} s")
                    data = os.read(process.stdout.fileno(), 2**20)
                    if not data:
                        break
                    if (count := count + len(data)) > limit:
                        raise OSError(f"the command gave more than {limit:,} bytes")
                    take(data)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise OSError(f"the command ended with status {process.returncode}: {shlex.join(words)}")
