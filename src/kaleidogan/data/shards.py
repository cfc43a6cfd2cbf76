"""A data set on disk: WebDataset tar shards, and the index that says exactly what is in them.

A folder holds `000000.tar ...`, `index.json` (the set, and for each shard its count, bytes and SHA-256)
and `samples.npy` (one row a sample: where its picture lies, its label, its source's size). The shards are
standard WebDataset tars; the index is what makes every loss noticeable and every sample addressable.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FORMAT = 1
"""The index's own version number."""
NO_LABEL = -1
BLOCK = 512
"""A tar's unit: each member is a header of one block and data padded to whole blocks."""
ROW = np.dtype(
    [
        ("shard", "<u4"),
        ("offset", "<u8"),
        ("size", "<u4"),
        ("label", "<i4"),
        ("height", "<u4"),
        ("width", "<u4"),
    ]
)
"""What is known of one sample: its picture's place (shard number, byte offset and size of the encoded
picture), its class label or -1, and the height and width that its source had, in pixels."""
Rows = NDArray[Any]
"""An array of `ROW`s; beartype knows no type for a structured array."""
OPEN_FILES = 64
"""Shards that a reader holds open; the order visits few at a time."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class DataError(ValueError):
    """A data set on disk is not what its index says."""


@dataclass(frozen=True)
class Sample:
    """One picture as it is written: encoded bytes and what is known about it."""

    picture: bytes
    source_size: tuple[int, int]
    label: int | None = None
    caption: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Shard:
    """One tar file: its name, number of samples, size in bytes and SHA-256."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What a data set holds, as its `index.json` and `samples.npy` say."""

    folder: Path
    resolution: tuple[int, int]
    channels: int
    picture_format: str
    label_names: tuple[str, ...]
    resize_filter: str | None
    shards: tuple[Shard, ...]
    rows: Rows

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the shards' names and hashes: two sets with one fingerprint hold the same bytes."""
        text = "\n".join(f"{shard.name} {shard.sha256}" for shard in self.shards)
        return hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.rows)


def encode(pixels: NDArray[np.uint8], picture_format: str) -> bytes:
    """Encode one picture, [h, w, c] with 1, 3 or 4 channels, as png, jpg (quality 95) or webp (lossless)."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    options = {
        "png": {"format": "PNG", "compress_level": 6},
        "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
        "webp": {"format": "WEBP", "lossless": True},
    }[picture_format]
    picture.save(buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def decode(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Decode one picture of a shard to [h, w, c]."""
    picture: Image.Image = Image.open(io.BytesIO(data))
    if picture.mode != MODES[channels]:
        # A lossless WebP of gray pictures comes back as RGB.
        picture = picture.convert(MODES[channels])
    pixels = np.asarray(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def write(
    folder: Path,
    samples: Iterable[Sample],
    *,
    resolution: tuple[int, int],
    channels: int,
    picture_format: str = "png",
    label_names: tuple[str, ...] = (),
    resize_filter: str | None = None,
    samples_per_shard: int = 1024,
) -> Index:
    """Write a data set beside its place, and rename it when it is whole.

    Args:
        folder: where the set will stand; it must not exist.
        samples: in the order in which they are stored.
        resolution: (height, width) that every picture has.
        channels: 1, 3 or 4.
        picture_format: the member's ending: png, jpg or webp.
        label_names: the classes' names, by label.
        resize_filter: how the pictures were scaled, for the record.
        samples_per_shard: the last shard may hold fewer.

    Raises:
        FileExistsError: if the folder is there already.
        ValueError: if there is no sample at all.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; choose another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        shards, rows = _write_shards(aside, samples, picture_format, samples_per_shard)
        if not shards:
            raise ValueError(f"no picture to write into {folder}")
        np.save(aside / "samples.npy", rows)
        about = {
            "format": FORMAT,
            "resolution": list(resolution),
            "channels": channels,
            "picture_format": picture_format,
            "label_names": list(label_names),
            "resize_filter": resize_filter,
            "shards": [asdict(shard) for shard in shards],
        }
        (aside / "index.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return load_index(folder)


def _write_shards(
    folder: Path, samples: Iterable[Sample], picture_format: str, samples_per_shard: int
) -> tuple[list[Shard], Rows]:
    shards: list[Shard] = []
    parts: list[Rows] = []
    for number, group in enumerate(_groups(samples, samples_per_shard)):
        path = folder / f"{number:06d}.tar"
        _write_tar(path, group, number * samples_per_shard, picture_format)
        rows = _locate(path, number, picture_format)
        assert len(rows) == len(group), "every sample written is found again"
        for row, sample in zip(rows, group, strict=True):
            row["label"] = NO_LABEL if sample.label is None else sample.label
            row["height"], row["width"] = sample.source_size
        parts.append(rows)
        shards.append(Shard(path.name, len(group), path.stat().st_size, hash_file(path)))
    return shards, np.concatenate(parts) if parts else np.empty(0, ROW)


def _groups(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    for sample in samples:
        group.append(sample)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _write_tar(path: Path, group: list[Sample], first: int, picture_format: str) -> None:
    # The writer's module pulls in PyTorch when it is there; reading an index should not.
    from webdataset.writer import TarWriter

    # A fixed time and owner: equal pictures make equal bytes.
    with path.open("wb") as stream, TarWriter(stream, encoder=False, mtime=0) as tar:
        for number, sample in enumerate(group, start=first):
            members: dict[str, str | bytes] = {"__key__": f"{number:08d}", picture_format: sample.picture}
            if sample.label is not None:
                members["cls"] = str(sample.label).encode()
            if sample.caption is not None:
                members["txt"] = sample.caption.encode()
            if sample.source is not None:
                about = {"source": sample.source, "source_size": list(sample.source_size)}
                members["json"] = json.dumps(about).encode()
            tar.write(members)


def _locate(path: Path, shard: int, picture_format: str) -> Rows:
    """Read back where each picture of a shard lies."""
    with tarfile.open(path) as tar:
        found = [m for m in tar.getmembers() if m.name.endswith(f".{picture_format}")]
    rows = np.zeros(len(found), ROW)
    rows["shard"] = shard
    rows["offset"] = [member.offset_data for member in found]
    rows["size"] = [member.size for member in found]
    return rows


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_index(folder: Path) -> Index:
    """Open a data set and check that its shards are there with the sizes that the index gives.

    Raises:
        FileNotFoundError: if there is no data set in the folder, or a shard is missing.
        DataError: if the index is of a newer format, or a shard's size differs from it.
    """
    path = folder / "index.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"no data set in '{folder}' (there is no index.json); "
            f"make one from pictures: kaleidogan prepare source=PICTURES out={folder} resolution=64"
        )
    about = json.loads(path.read_text(encoding="utf-8"))
    if about.get("format") != FORMAT:
        raise DataError(f"{path} has format {about.get('format')}; this version reads format {FORMAT}")
    index = Index(
        folder=folder,
        resolution=(about["resolution"][0], about["resolution"][1]),
        channels=about["channels"],
        picture_format=about["picture_format"],
        label_names=tuple(about["label_names"]),
        resize_filter=about["resize_filter"],
        shards=tuple(Shard(**shard) for shard in about["shards"]),
        rows=np.load(folder / "samples.npy", mmap_mode="r", allow_pickle=False),
    )
    _check_shards(index)
    return index


def _check_shards(index: Index) -> None:
    for shard in index.shards:
        path = index.folder / shard.name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; the index lists it with {shard.samples} samples")
        if (size := path.stat().st_size) != shard.bytes:
            raise DataError(f"{path} has {size} bytes; the index says {shard.bytes}")
    if (promised := sum(shard.samples for shard in index.shards)) != len(index.rows):
        raise DataError(
            f"{index.folder}: samples.npy has {len(index.rows)} rows, the shards {promised} samples"
        )


def check_header(header: bytes, size: int, ending: bytes) -> None:
    """Check that a tar header is whole and is that of a picture of as many bytes.

    Raises:
        ValueError: says what is wrong. By hand, as the checksum (POSIX ustar) is all that is asked for:
            parsing the header would take a quarter of the time of reading a small picture.
    """
    name = header[:100].rstrip(b"\0")
    checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if len(header) < BLOCK or checksum != int(header[148:156].strip(b" \0") or b"0", 8):
        raise ValueError("its tar header is broken")
    if not name.endswith(ending) or int(header[124:136].strip(b" \0"), 8) != size:
        raise ValueError(f"its tar header is that of another member, {name!r}")


class Reader:
    """Reads single samples of a data set by number; the last shards that were opened stay open.

    An instance travels to a data worker unopened: the files are opened where they are read.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._ending = f".{index.picture_format}".encode()
        self._files: dict[int, int] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}}

    def read(self, number: int) -> NDArray[np.uint8]:
        """Read the picture of one sample, [h, w, c].

        Raises:
            DataError: if the bytes on disk are not the picture that the index promises; names the sample.
        """
        shard, offset, size = self.index.rows[number].item()[:3]
        data = os.pread(self._file(shard), BLOCK + size, offset - BLOCK)
        try:
            check_header(data[:BLOCK], size, self._ending)
            pixels = decode(data[BLOCK:], self.index.channels)
            if pixels.shape[:2] != self.index.resolution:
                raise ValueError(f"it is {pixels.shape[:2]}, not {self.index.resolution}")
        except (OSError, SyntaxError, ValueError) as error:
            path = self.index.folder / self.index.shards[shard].name
            raise DataError(f"sample {number} in {path} is damaged: {error}") from error
        return pixels

    def _file(self, shard: int) -> int:
        if shard not in self._files:
            if len(self._files) >= OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            path = self.index.folder / self.index.shards[shard].name
            self._files[shard] = os.open(path, os.O_RDONLY)
        return self._files[shard]

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the shards' files."""
        while self._files:
            os.close(self._files.popitem()[1])
