"""A data set on disk: WebDataset tar shards, and the index that says exactly what is in them.

A folder holds `000000.tar ...`, `index.json` (the set, and for each shard its count, bytes and SHA-256)
and `samples.npy` (one row a sample: where its picture lies, its hash, its label, its source's size). The
shards are standard WebDataset tars; the index is what makes every loss noticeable and every sample
addressable.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from kaleidogan.data.files import INDEX, DataError, Entry, Files, Folder, hash_file, open_files
from kaleidogan.settings import Channels, PictureFormat

FORMAT = 2
"""The index's own version number."""
OLDEST_FORMAT = 1
"""Format 1 knew no samples' hashes, and no SHA-256 of `samples.npy`."""
NO_LABEL = -1
BLOCK = 512
"""A tar's unit: each member is a header of one block and data padded to whole blocks."""
MAX_PICTURE = 2**26
"""64 MiB: more than a picture of a shard may have."""
ROW_1 = np.dtype(
    [
        ("shard", "<u4"),
        ("offset", "<u8"),
        ("size", "<u4"),
        ("label", "<i4"),
        ("height", "<u4"),
        ("width", "<u4"),
    ]
)
ROW = np.dtype([*ROW_1.descr, ("hash", "<u8")])
"""What is known of one sample: its picture's place (shard number, byte offset and size of the encoded
picture), its class label or -1, the height and width that its source had, in pixels, and `hash_sample` of
its tar header and picture."""
Rows = NDArray[Any]
"""An array of `ROW`s; beartype knows no type for a structured array."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
SAMPLES = "samples.npy"
CONDITIONS = "conditions.npy"
ASPECTS = "aspects.npy"
MOST_OFFSET = 2**62
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}$"
"""What an index may call a shard: nothing that leaves the folder, looks like an option, or hides."""
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Sample:
    """One picture as it is written: encoded bytes and what is known about it.

    Attributes:
        picture: encoded.
        source_size: (height, width) of its source.
        label: its class.
        condition: numbers that describe it: one for each of the set's `condition_names`.
        caption: text that describes it.
        source: where it is from: the path within what was prepared.
        part: which of the crops or variants of its source.
        about: anything else, such as its artist and licence, for the member `json`.
    """

    picture: bytes
    source_size: tuple[int, int]
    label: int | None = None
    condition: tuple[float, ...] = ()
    caption: str | None = None
    source: str | None = None
    part: int = 0
    about: dict[str, object] | None = None


class Strict(BaseModel):
    """A part of `index.json`, without surprises."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Shard(Strict):
    """One tar file: its name, number of samples, size in bytes and SHA-256."""

    name: Annotated[str, StringConstraints(pattern=NAME)]
    samples: Annotated[int, Field(ge=1)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256

    @property
    def entry(self) -> Entry:
        """The shard as a file."""
        return Entry(self.name, self.bytes, self.sha256)


class Sidecar(Strict):
    """A file beside the shards: its size in bytes and SHA-256."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Description(Strict):
    """What holds for all pictures of a set.

    Attributes:
        resolution: (height, width).
        channels: 1, 3 or 4.
        picture_format: how they are stored.
        label_names: the classes' names, by label.
        condition_names: what the numbers of each picture's condition stand for.
        resize_filter: how they were scaled down; published FIDs move with it.
        crop: how they were made to fit.
        aspect_ratio: width / height at which they should be shown, where they were squashed to one shape.
    """

    resolution: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    channels: Channels = 3
    picture_format: PictureFormat = "png"
    label_names: tuple[str, ...] = ()
    condition_names: tuple[str, ...] = ()
    resize_filter: str | None = None
    crop: str | None = None
    aspect_ratio: float | None = None


class About(Description):
    """What `index.json` says of a set."""

    format: int = FORMAT
    samples: Sidecar | None = None
    aspects: Sidecar | None = None
    conditions: Sidecar | None = None
    shards: Annotated[tuple[Shard, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Index:
    """A data set that is open: what its `index.json` and `samples.npy` say.

    Attributes:
        files: where its files are.
        about: `index.json`.
        rows: a `ROW` a sample.
        conditions: [n, c_dim], what `condition_names` name; None if there are none.
    """

    files: Files
    about: About
    rows: Rows
    conditions: NDArray[np.float32] | None = None

    @property
    def place(self) -> str:
        """The folder or address."""
        return self.files.place

    @property
    def resolution(self) -> tuple[int, int]:
        """(height, width)."""
        return self.about.resolution

    @property
    def channels(self) -> int:
        """1, 3 or 4."""
        return self.about.channels

    @property
    def picture_format(self) -> str:
        """The pictures' ending: png, jpg or webp."""
        return self.about.picture_format

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, by label."""
        return self.about.label_names

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The tar files."""
        return self.about.shards

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the shards' names and hashes: two sets with one fingerprint hold the same bytes."""
        text = "\n".join(f"{shard.name} {shard.sha256}" for shard in self.shards)
        return hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Fault:
    """A shard that is not as it should be: its number, what is wrong, and which samples that loses."""

    shard: int
    message: str
    lost: int


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


def hash_sample(header: bytes, picture: bytes) -> int:
    """XXH3-64 of a tar header and the picture behind it: any damage shows, at a fraction of a CRC's cost."""
    state = xxhash.xxh3_64(header)
    state.update(picture)
    return state.intdigest()


def load_index(place: Path | str | Files, check: bool = True) -> Index:
    """Open a data set and check that its shards are there with the sizes that the index gives.

    Args:
        place: its folder, or its files from `open_files`.
        check: whether a faulty shard is an error; see `faults`.

    Raises:
        FileNotFoundError: if there is no data set, or a shard is missing.
        DataError: if the index is broken or of a newer format, or a shard's size differs from it.
    """
    files = open_files(str(place)) if isinstance(place, Path | str) else place
    about = _read_about(files)
    rows = _read_rows(files, about)
    index = Index(files, about, rows, _read_conditions(files, about, len(rows)))
    if check and (found := faults(index)):
        raise (DataError if files.size(about.shards[found[0].shard].name) != -1 else FileNotFoundError)(
            found[0].message
        )
    return index


def _read_about(files: Files) -> About:
    path = f"{files.place}/{INDEX}"
    data = files.read_index()
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    version = plain.get("format") if isinstance(plain, dict) else None
    if not isinstance(version, int) or not OLDEST_FORMAT <= version <= FORMAT:
        raise DataError(
            f"{path} has format {version}; this version reads formats {OLDEST_FORMAT} to {FORMAT}"
        )
    try:
        about = About.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path} is broken: {where}: {first['msg']}") from error
    if not isinstance(files, Folder) and about.samples is None:
        raise DataError(
            f"{path} has format {version}, which can only be read from a folder; prepare the set again"
        )
    return about


def _read_array(files: Files, name: str, sidecar: Sidecar | None) -> NDArray[Any]:
    """Open an array beside the shards, and check its SHA-256 where it is known."""
    path = (
        Path(files.place) / name
        if sidecar is None
        else files.fetch(Entry(name, sidecar.bytes, sidecar.sha256))
    )
    where = f"{files.place}/{name}"
    try:
        if sidecar is not None and hash_file(path) != sidecar.sha256:
            raise DataError(f"{where} is not the one that was written: its SHA-256 differs from the index's")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where} is missing; the index lists it") from error
    except (EOFError, SyntaxError, TypeError, OverflowError, OSError) as error:
        raise DataError(f"{where} cannot be read: {error}") from error
    except ValueError as error:
        raise (
            error if isinstance(error, DataError) else DataError(f"{where} cannot be read: {error}")
        ) from error
    assert isinstance(array, np.ndarray)
    return array


def _read_rows(files: Files, about: About) -> Rows:
    rows = _read_array(files, SAMPLES, about.samples)
    promised = sum(shard.samples for shard in about.shards)
    if rows.dtype not in (ROW, ROW_1) or rows.shape != (promised,):
        raise DataError(
            f"{files.place}/{SAMPLES} holds {rows.shape} of {rows.dtype.names or rows.dtype}; "
            f"the shards promise {promised} samples"
        )
    counts = [shard.samples for shard in about.shards]
    last = np.array([shard.bytes for shard in about.shards])[np.minimum(rows["shard"], len(counts) - 1)]
    sound = (
        np.array_equal(rows["shard"], np.repeat(np.arange(len(counts)), counts))
        and bool((rows["offset"] >= BLOCK).all())
        and bool((rows["size"] <= MAX_PICTURE).all())
        and bool((rows["offset"] <= np.uint64(MOST_OFFSET)).all())
        and bool((rows["offset"] + rows["size"] <= last).all())
        and bool((rows["label"] < len(about.label_names)).all())
    )
    if not sound:
        raise DataError(f"{files.place}/{SAMPLES} does not fit the shards of {INDEX}")
    return rows


def _read_conditions(files: Files, about: About, count: int) -> NDArray[np.float32] | None:
    if not about.condition_names:
        return None
    conditions = _read_array(files, CONDITIONS, about.conditions)
    wanted = (count, len(about.condition_names))
    if conditions.dtype != np.float32 or conditions.shape != wanted or not np.isfinite(conditions).all():
        raise DataError(f"{files.place}/{CONDITIONS} does not hold finite numbers {wanted}")
    return conditions


def faults(index: Index) -> list[Fault]:
    """Look at the shards' sizes, where that is quick: what is missing, and what is cut off."""
    found = []
    first = 0
    for number, shard in enumerate(index.shards):
        rows = index.rows[first : first + shard.samples]
        first += shard.samples
        size = index.files.size(shard.name)
        where = f"{index.place}/{shard.name}"
        if size is None or size == shard.bytes:
            continue
        if size < 0:
            message = f"{where} is missing; the index lists it with {shard.samples} samples"
            found.append(Fault(number, message, shard.samples))
            continue
        beyond = int((rows["offset"] + rows["size"] > size).sum())
        lost = f", so {beyond} of its {shard.samples} samples are lost" if beyond else ""
        found.append(Fault(number, f"{where} has {size} bytes; the index says {shard.bytes}{lost}", beyond))
    return found
