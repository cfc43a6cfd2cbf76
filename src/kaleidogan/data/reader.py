"""Reading single samples of a data set: straight from the shards, each checked, by number."""

import io
import math
import os
import struct
import time
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyspng
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from kaleidogan.data.files import DataError, Remote
from kaleidogan.data.shards import BLOCK, MODES, Index, hash_sample

UNREADABLE = (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError)
"""What decoders raise for pictures that are broken, or are others than they should be."""
AGAIN = 60.0
"""Seconds after which a shard that could not be had is asked for again."""
OPEN_FILES = 64
"""Shards that a reader holds open; the order visits few at a time."""
PNG_SIZE = struct.Struct(">II")
"""Width and height, which a PNG's header has at byte 16."""


class ShardError(DataError):
    """A whole shard cannot be had."""


@runtime_checkable
class PictureReader(Protocol):
    """Reads a data set's pictures by number; travels to a data worker unopened."""

    def read(self, number: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Read one picture, [h, w, c], into `out` if it is given; DataError names the sample."""
        ...


def decode(
    data: bytes, channels: int, resolution: tuple[int, int], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Decode one picture of a shard to [h, w, c], with the fastest decoder that there is for its kind.

    Args:
        data: a PNG, JPEG or WebP.
        channels: 1, 3 or 4.
        resolution: (height, width) that it must have; looked up in its header before anything is decoded.
        out: where the pixels go, [h, w, c] without gaps; None for a new array.

    Raises:
        ValueError, OSError, RuntimeError: if it is another picture, or broken.
    """
    if data[:4] == b"\x89PNG":
        _check_size(PNG_SIZE.unpack_from(data, 16)[::-1], resolution)
        pixels = pyspng.load(data, MODES[channels])
    elif data[:2] == b"\xff\xd8":
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        _check_size((height, width), resolution)
        colours = "GRAY" if channels == 1 else "RGB"
        pixels = simplejpeg.decode_jpeg(data, colours, buffer=out)
        if out is not None:
            return out
    else:
        picture: Image.Image = Image.open(io.BytesIO(data), formats=("WEBP",))
        _check_size((picture.height, picture.width), resolution)
        # A lossless WebP of gray pictures comes back as RGB.
        pixels = np.asarray(picture if picture.mode == MODES[channels] else picture.convert(MODES[channels]))
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if out is None:
        return pixels
    out[:] = pixels
    return out


def _check_size(found: tuple[int, ...], wanted: tuple[int, int]) -> None:
    if tuple(found) != wanted:
        raise ValueError(f"it is {tuple(found)}, not {wanted}")


def check_header(header: bytes, size: int, ending: bytes) -> None:
    """Check that a tar header is whole and is that of a picture of as many bytes.

    Raises:
        ValueError: says what is wrong. By hand, as the checksum (POSIX ustar) is all that is asked for:
            parsing the header would take a quarter of the time of reading a small picture.
    """
    name = header[:100].rstrip(b"\0")
    checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if len(header) < BLOCK or checksum != _octal(header[148:156]):
        raise ValueError("its tar header is broken")
    if not name.endswith(ending) or _octal(header[124:136]) != size:
        raise ValueError(f"its tar header is that of another member, {name!r}")


def _octal(text: bytes) -> int:
    text = text.strip(b" \0")
    return int(text, 8) if text and all(byte in b"01234567" for byte in text) else -1


class Reader:
    """Reads single samples of a data set by number; the last shards that were opened stay open.

    An instance travels to a data worker unopened: the files are opened where they are read.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._ending = f".{index.picture_format}".encode()
        # A view without the mapping's own methods, which are slow.
        self._rows = np.asarray(index.rows)
        self._hashed = "hash" in (index.rows.dtype.names or ())
        self._files: dict[int, int] = {}
        self._missing: dict[int, tuple[str, float]] = {}
        self._healed: set[int] = set()

    def __getstate__(self) -> dict[str, object]:
        return {"index": self.index}

    def __setstate__(self, state: dict[str, Index]) -> None:
        self.__init__(state["index"])  # type: ignore[misc]

    def read(self, number: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Read the picture of one sample, [h, w, c], into `out` if it is given.

        Raises:
            DataError: if the bytes on disk are not the picture that the index promises; names the sample.
        """
        row = self._rows[number].item()
        shard, offset, size = row[:3]
        try:
            file = self._file(shard)
            header, data = os.pread(file, BLOCK, offset - BLOCK), os.pread(file, size, offset)
            # The header's own check is slower, and says more.
            if not self._hashed or hash_sample(header, data) != row[-1]:
                check_header(header, size, self._ending)
                if len(data) < size:
                    raise ValueError(f"it ends after {len(data)} of {size} bytes")
                if self._hashed:
                    raise ValueError("its bytes are not those that were written")
            return decode(data, self.index.channels, self.index.resolution, out)
        except ShardError:
            raise
        except (*UNREADABLE, struct.error) as error:
            if self._heal(shard):
                return self.read(number, out)
            where = f"{self.index.place}/{self.index.shards[shard].name}"
            raise DataError(f"sample {number} in {where} is damaged: {error}") from error

    def _heal(self, shard: int) -> bool:
        """Have a shard anew, once, if its copy in the cache is no longer what came."""
        files = self.index.files
        if not isinstance(files, Remote) or shard in self._healed:
            return False
        self._healed.add(shard)
        if files.forget_if_damaged(self.index.shards[shard].entry):
            os.close(self._files.pop(shard))
            return True
        return False

    def _file(self, shard: int) -> int:
        if shard in self._files:
            return self._files[shard]
        missing, since = self._missing.get(shard, ("", -math.inf))
        if time.monotonic() - since < AGAIN:
            raise ShardError(missing)
        if len(self._files) >= OPEN_FILES:
            os.close(self._files.pop(next(iter(self._files))))
        self._close_deleted()
        self._files[shard] = self._open(shard)
        return self._files[shard]

    def _open(self, shard: int) -> int:
        while True:
            try:
                path = self.index.files.fetch(self.index.shards[shard].entry)
                return os.open(path, os.O_RDONLY)
            except (OSError, DataError) as error:
                # Another process may have needed the room in the cache just now.
                if isinstance(error, FileNotFoundError) and error.filename == str(self._cached(shard)):
                    continue
                # Not tried again for each of its samples.
                message = f"{self.index.place}/{self.index.shards[shard].name} cannot be had: {error}"
                self._missing[shard] = (message, time.monotonic())
                raise ShardError(message) from error

    def _cached(self, shard: int) -> Path | None:
        files = self.index.files
        return files.cache / self.index.shards[shard].sha256 if isinstance(files, Remote) else None

    def _close_deleted(self) -> None:
        """Let go of what the cache has let go of: until then it takes room on the disk."""
        for shard, file in list(self._files.items()):
            if os.fstat(file).st_nlink == 0:
                os.close(self._files.pop(shard))

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the shards' files."""
        while self._files:
            os.close(self._files.popitem()[1])
