"""What became of a heap of pictures: counts, reasons, and sheets of pictures to look at."""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from kaleidogan.data.preparing.pictures import PictureError, upright
from kaleidogan.data.preparing.sheets import contact_sheet
from kaleidogan.data.preparing.sources import LINKED, Source
from kaleidogan.data.preparing.treatment import Skipped
from kaleidogan.data.preparing.workers import printable, read
from kaleidogan.data.reader import Reader
from kaleidogan.data.shards import Index

NUM_EXAMPLES = 3
"""How many files the report names for each reason; all of them are in `report.json`."""
MAX_ENDINGS = 5
"""How many kinds of other files the report names."""
SHEET = 64
"""How many pictures a sheet shows."""
KINDS = {1: "gray", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Near:
    """A picture that was near a filter's limit, on one side or the other."""

    margin: float
    file: str
    filter: str


@dataclass(frozen=True)
class Report:
    """What became of a source's files.

    Attributes:
        index: the data set that was written.
        place: where it stands.
        pictures: number of source pictures in it; more than one sample may come from each.
        captions: how many pictures have one.
        enlarged: how many samples had fewer pixels than the resolution.
        unframed: how many pictures lost a frame.
        excluded: how many files each pattern took away.
        skipped: every file that looked like a picture and was not taken.
        others: number of files that are no pictures, by ending.
        near: the pictures nearest to a filter's limit.
        settings: what `prepare` was called with, but for where and by how many processes.
    """

    index: Index
    place: Path
    pictures: int
    captions: int
    enlarged: int
    unframed: int
    excluded: dict[str, int]
    skipped: tuple[Skipped, ...]
    others: dict[str, int]
    near: tuple[Near, ...]
    settings: dict[str, object]

    @property
    def kept(self) -> int:
        """Number of samples in the set."""
        return len(self.index)

    def as_dict(self) -> dict[str, object]:
        """Give the whole report in plain values, as `report.json` has it."""
        return {
            "kept": self.kept,
            "pictures": self.pictures,
            "captions": self.captions,
            "enlarged": self.enlarged,
            "unframed": self.unframed,
            "excluded": sum(self.excluded.values()),
            "excluded_by_pattern": self.excluded,
            "skipped": len(self.skipped),
            "skipped_by_reason": dict(Counter(one.reason for one in self.skipped).most_common()),
            "skipped_files": [
                {"file": one.file, "reason": one.reason} | ({"detail": one.detail} if one.detail else {})
                for one in self.skipped
            ],
            "other_files": self.others,
            "settings": self.settings,
            "pillow": PIL.__version__,
        }

    def __str__(self) -> str:
        """Say it on one screen."""
        index = self.index
        size = sum(shard.bytes for shard in index.shards) / 1e6
        height, width = index.resolution
        count = str(self.kept) if self.kept == self.pictures else f"{self.kept} samples of {self.pictures}"
        lines = [
            f"{self.place}: {count} pictures, {height} x {width} {KINDS[index.channels]} "
            f"{index.picture_format}, {size:.1f} MB in {len(index.shards)} shard"
            + "s"
            * (len(index.shards) > 1)
        ]
        if index.label_names:
            empty = len(index.label_names) - len(set(index.rows["label"].tolist()))
            lines.append(_line(len(index.label_names), "classes" + f", {empty} of them empty" * (empty > 0)))
        if self.captions:
            lines.append(_line(self.captions, "pictures have a caption"))
        lines.append(_line(self.enlarged, f"enlarged: smaller than {height} x {width}"))
        if self.settings.get("frames", "keep") != "keep":
            lines.append(_line(self.unframed, "lost a frame"))
        lines.append(_line(sum(self.excluded.values()), "excluded"))
        if idle := [printable(pattern) for pattern, count in self.excluded.items() if not count]:
            lines.append(f"{'':9}took nothing away: {', '.join(idle)}")
        lines.append(_line(len(self.skipped), "skipped"))
        lines += describe_skipped(self.skipped)
        if self.others:
            endings = ", ".join(f"{n} {printable(end)}" for end, n in list(self.others.items())[:MAX_ENDINGS])
            lines.append(_line(sum(self.others.values()), f"other files: {endings}"))
        return "\n".join([*lines, f"the whole list, and sheets to look at: {self.place / 'report.json'}"])

    def draw(self, folder: Path, files: Source) -> None:
        """Draw sheets of what was kept, left out, and nearly one or the other."""
        sheets = {
            "kept": (self._kept(), "kept"),
            "dropped": (_thumbnails(files, _mixed(self.skipped)), "left out"),
            "borderline": (_thumbnails(files, self._borderline()), "near a filter's limit"),
        }
        for name, (entries, title) in sheets.items():
            if found := list(islice(entries, SHEET)):
                contact_sheet(found, title=title).save(folder / f"{name}.png")

    def _kept(self) -> Iterator[tuple[Image.Image, str]]:
        reader = Reader(self.index)
        numbers = np.unique(np.linspace(0, self.kept - 1, min(SHEET, self.kept)).astype(int))
        for number in numbers.tolist():
            pixels = reader.read(number)
            yield Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), f"{number:08d}"
        reader.close()

    def _borderline(self) -> list[tuple[str, str]]:
        near = sorted(self.near, key=lambda one: (one.margin, one.file))
        return [(one.file, f"{one.filter} {one.margin:+.1%}") for one in near]


def nearest(found: list[Near]) -> list[Near]:
    """Keep as many as a sheet shows."""
    return heapq.nsmallest(SHEET, found, key=lambda one: (abs(one.margin), one.file))


def _mixed(skipped: tuple[Skipped, ...]) -> list[tuple[str, str]]:
    """Take turns among the reasons, so that each is seen."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for one in skipped:
        if one.reason != LINKED:  # it is there under another name
            groups.setdefault(one.reason, []).append((one.file, f"{one.reason}\n{one.detail}".rstrip()))
    return [entry for row in zip_longest(*groups.values()) for entry in row if entry is not None]


def _thumbnails(files: Source, entries: list[tuple[str, str]]) -> Iterator[tuple[Image.Image, str]]:
    """Decode what can be decoded."""
    for name, caption in entries[: 4 * SHEET]:
        data = read(files, name)
        if isinstance(data, bytes):
            try:
                yield upright(data), caption
            except PictureError:
                continue


def describe_skipped(skipped: tuple[Skipped, ...]) -> list[str]:
    """Say for each reason how many files were skipped, and name a few; the most frequent reason first."""
    lines = []
    for reason, count in Counter(one.reason for one in skipped).most_common():
        names = [printable(one.file) for one in skipped if one.reason == reason]
        more = ", ..." if count > NUM_EXAMPLES else ""
        lines.append(f"{_line(count, reason)}: {', '.join(names[:NUM_EXAMPLES])}{more}")
    return lines


def _line(count: int, text: str) -> str:
    return f"{count:8} {text}"
