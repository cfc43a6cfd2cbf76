"""Writing a data set: beside its place, shard by shard, and renamed when it is whole.

What is finished survives a kill: each finished shard is told in a journal, from which the next start goes on.
"""

import fcntl
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kaleidogan.data.files import INDEX, hash_file
from kaleidogan.data.shards import (
    ASPECTS,
    BLOCK,
    CONDITIONS,
    NO_LABEL,
    ROW,
    SAMPLES,
    About,
    Description,
    Index,
    Rows,
    Sample,
    Shard,
    Sidecar,
    hash_sample,
    load_index,
)

JOURNAL = "journal.jsonl"
State = dict[str, Any]
"""What a caller needs to go on after a shard: plain values."""


@dataclass
class Aside:
    """A folder beside a set's place, in which it is written: the set, and what a killed run needs to go on.

    Attributes:
        place: where the set will stand.
        folder: that folder.
        shards: those that are finished.
        states: what the caller said when each of them was, in order.
    """

    place: Path
    folder: Path
    shards: list[Shard] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    @property
    def set(self) -> Path:
        """The folder that will be the set."""
        return self.folder / "set"

    def finish(self, shard: Shard, parts: dict[str, NDArray[Any]], state: State) -> None:
        """Tell that a shard is whole."""
        for kind, array in parts.items():
            with self._part(shard, kind).open("wb") as stream:
                np.save(stream, array)
                stream.flush()
                os.fsync(stream.fileno())
        self.shards.append(shard)
        self.states.append(state)
        self.tell({"shard": shard.model_dump(), "state": state})

    def _part(self, shard: Shard, kind: str) -> Path:
        return self.folder / f"{shard.name}.{kind}.npy"

    def gather(self, kind: str) -> NDArray[Any]:
        """Join what was told of the shards' samples: `rows`, `conditions` or `aspects`."""
        return np.concatenate([np.load(self._part(shard, kind)) for shard in self.shards])

    def tell(self, line: dict[str, Any]) -> None:
        """Add a line to the journal; it is on the disk when this returns."""
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def begin(self, key: str) -> None:
        """Take up what a killed run left under the same key, as far as it is whole; remove the rest."""
        lines = _read_journal(self.folder / JOURNAL)
        if not lines or lines[0] != {"key": key}:
            if len(lines) > 1:
                print(f"{self.place}: begun with other settings or pictures; beginning anew")
            shutil.rmtree(self.folder, ignore_errors=True)
            self.set.mkdir(parents=True)
            self.tell({"key": key})
            return
        for line in lines[1:]:
            shard = Shard.model_validate(line["shard"])
            path = self.set / shard.name
            if not path.is_file() or hash_file(path) != shard.sha256:
                break
            self.shards.append(shard)
            self.states.append(line["state"])
        whole = {shard.name for shard in self.shards}
        for stray in [path for path in self.set.iterdir() if path.name not in whole]:
            stray.unlink()
        journal = "".join(json.dumps(line) + "\n" for line in lines[: 1 + len(self.shards)])
        fresh = self.folder / f"{JOURNAL}.new"
        fresh.write_text(journal, encoding="utf-8")
        _flush(fresh)
        fresh.rename(self.folder / JOURNAL)

    def seal(self, description: Description) -> Index:
        """Write the index of what is finished, and open it.

        Raises:
            ValueError: if nothing is.
        """
        if not self.shards:
            raise ValueError(f"no picture to write into {self.place}")
        arrays = {"samples": self.gather("rows"), "aspects": np.sort(self.gather("aspects"))}
        if description.condition_names:
            arrays["conditions"] = self.gather("conditions")
        names = {"samples": SAMPLES, "aspects": ASPECTS, "conditions": CONDITIONS}
        sidecars = {}
        for kind, array in arrays.items():
            path = self.set / names[kind]
            np.save(path, array)
            sidecars[kind] = Sidecar(bytes=path.stat().st_size, sha256=hash_file(path))
        plain = {**description.model_dump(), **sidecars, "shards": tuple(self.shards)}
        text = About.model_validate(plain).model_dump_json(indent=1, exclude_none=True)
        (self.set / INDEX).write_text(text + "\n", encoding="utf-8")
        return load_index(self.set)

    def publish(self) -> Index:
        """Put the set in its place, whole and on the disk, and forget how it was made."""
        for path in (*self.set.iterdir(), self.set):
            _flush(path)
        self.set.rename(self.place)
        _flush(self.place.parent)
        shutil.rmtree(self.folder, ignore_errors=True)
        return load_index(self.place)


def _check_free(place: Path) -> None:
    if place.exists():
        raise FileExistsError(f"{place} is there already; choose another folder or remove it")


def _flush(path: Path) -> None:
    """Have a file or a folder on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def open_aside(place: Path, key: str | None = None) -> Iterator[Aside]:
    """Open the folder in which a set is written.

    Args:
        place: where the set will stand.
        key: says what is written. What a run with the same key left is gone on with, and the folder stays
            when an error or a kill ends the writing after a shard was finished. None: neither.

    Raises:
        FileExistsError: if the set is there already.
        BlockingIOError: if another process is writing it.
    """
    _check_free(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    if key is None:
        aside = Aside(place, place.with_name(f".{place.name}.{os.getpid()}.partial"))
        try:
            aside.begin("")
            yield aside
        finally:
            shutil.rmtree(aside.folder, ignore_errors=True)
        return
    with place.with_name(f".{place.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"another process is writing {place}; wait for it") from error
        _check_free(place)  # it may have come while the lock was waited for
        aside = Aside(place, place.with_name(f".{place.name}.partial"))
        try:
            aside.begin(key)
            yield aside
        finally:
            # What no shard was finished of is not worth going on with.
            if not aside.shards:
                shutil.rmtree(aside.folder, ignore_errors=True)
            Path(lock.name).unlink(missing_ok=True)


def _read_journal(path: Path) -> list[dict[str, Any]]:
    lines = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # cut off by the kill
                break
    return lines


def write(
    folder: Path, samples: Iterable[Sample], description: Description, samples_per_shard: int = 1024
) -> Index:
    """Write a data set beside its place, and rename it when it is whole.

    Args:
        folder: where the set will stand; it must not exist.
        samples: in the order in which they are stored.
        description: what holds for all of them.
        samples_per_shard: the last shard may hold fewer.

    Raises:
        FileExistsError: if the folder is there already.
        ValueError: if there is no sample at all.
    """
    with open_aside(folder) as aside:
        write_shards(aside, samples, description.picture_format, samples_per_shard)
        aside.seal(description)
        return aside.publish()


def write_shards(
    aside: Aside,
    samples: Iterable[Sample],
    picture_format: str,
    samples_per_shard: int,
    state: Callable[[], State] = dict,
) -> None:
    """Write samples after those that are finished.

    Args:
        aside: where.
        samples: in the order in which they are stored.
        picture_format: png, jpg or webp.
        samples_per_shard: the last shard may hold fewer.
        state: asked for after each shard: what the caller needs to go on from there.
    """
    for group in _groups(samples, samples_per_shard):
        number = len(aside.shards)
        path = aside.set / f"{number:06d}.tar"
        _write_tar(path, group, number * samples_per_shard, picture_format)
        size = path.stat().st_size
        shard = Shard(name=path.name, samples=len(group), bytes=size, sha256=hash_file(path))
        aside.finish(shard, _describe(path, number, group, picture_format), state())


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
    with path.open("wb") as stream:
        with TarWriter(stream, encoder=False, mtime=0) as tar:
            for number, sample in enumerate(group, start=first):
                tar.write(_members(number, sample, picture_format))
        stream.flush()
        os.fsync(stream.fileno())


def _members(number: int, sample: Sample, picture_format: str) -> dict[str, str | bytes]:
    members: dict[str, str | bytes] = {"__key__": f"{number:08d}", picture_format: sample.picture}
    if sample.label is not None:
        members["cls"] = str(sample.label).encode()
    if sample.caption is not None:
        members["txt"] = sample.caption.encode()
    about: dict[str, object] = dict(sample.about or {})
    if sample.source is not None:
        about |= {"source": sample.source, "source_size": list(sample.source_size)}
    if sample.condition:
        about["condition"] = list(sample.condition)
    if about:
        members["json"] = json.dumps(about).encode()
    return members


def _describe(path: Path, number: int, group: list[Sample], picture_format: str) -> dict[str, NDArray[Any]]:
    """Read a shard back, and say of each sample where it lies and what is known of it."""
    rows = _locate(path, number, picture_format)
    assert len(rows) == len(group), "every sample written is found again"
    for row, sample in zip(rows, group, strict=True):
        row["label"] = NO_LABEL if sample.label is None else sample.label
        row["height"], row["width"] = sample.source_size
    ratios = [s.source_size[1] / s.source_size[0] for s in group if s.part == 0]
    return {
        "rows": rows,
        "conditions": np.array([s.condition for s in group], np.float32),
        "aspects": np.array(ratios, np.float32),
    }


def _locate(path: Path, shard: int, picture_format: str) -> Rows:
    """Read back where each picture of a shard lies, and the hash of its header and bytes."""
    with tarfile.open(path) as tar:
        found = [m for m in tar.getmembers() if m.name.endswith(f".{picture_format}")]
    rows = np.zeros(len(found), ROW)
    rows["shard"] = shard
    rows["offset"] = [member.offset_data for member in found]
    rows["size"] = [member.size for member in found]
    with path.open("rb") as stream:
        for row in rows:
            stream.seek(int(row["offset"]) - BLOCK)
            row["hash"] = hash_sample(stream.read(BLOCK), stream.read(int(row["size"])))
    return rows
