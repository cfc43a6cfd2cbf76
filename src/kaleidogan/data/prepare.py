"""`kaleidogan prepare`: a folder, zip or tar of pictures becomes a data set of shards.

Nothing is left out in silence: what is kept, enlarged, excluded and skipped is counted, shown at the end and
listed in the set's `report.json`.
"""

import json
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import PIL
from tqdm import tqdm

from kaleidogan.data.labels import Labels, read_labels
from kaleidogan.data.pictures import ENDINGS, PictureError, read_picture
from kaleidogan.data.shards import Index, Sample, encode, write
from kaleidogan.data.sources import Selection, Source, open_source, select
from kaleidogan.settings import Channels, Count, CountOrZero, PictureFormat, Resolution, size_of

NUM_EXAMPLES = 3
"""How many files the report names for each reason; all of them are in `report.json`."""
AHEAD = 4
"""How many pictures a worker has in hand or before it: enough to keep it busy, few enough for memory."""
MAX_ENDINGS = 5
"""How many kinds of other files the report names."""
RESIZE_FILTER = "box"


@dataclass(frozen=True)
class Fitted:
    """One picture as it goes into a shard."""

    encoded: bytes
    source_size: tuple[int, int]
    enlarged: bool


@dataclass(frozen=True)
class Skipped:
    """One file that was not taken: its path within the source, the kind of fault, and its particulars."""

    file: str
    reason: str
    detail: str = ""


Results = Generator[tuple[str, Fitted | Skipped], None, None]


@dataclass(frozen=True)
class Report:
    """What became of a source's files.

    Attributes:
        index: the data set that was written.
        kept: number of pictures in it.
        enlarged: how many of them were smaller than the resolution.
        excluded: how many files each pattern took away.
        skipped: every file that looked like a picture and could not be used.
        others: number of files that are no pictures, by ending.
        settings: what `prepare` was called with.
    """

    index: Index
    kept: int
    enlarged: int
    excluded: dict[str, int]
    skipped: tuple[Skipped, ...]
    others: dict[str, int]
    settings: dict[str, object]

    def as_dict(self) -> dict[str, object]:
        """Give the whole report in plain values, as `report.json` has it."""
        return {
            "kept": self.kept,
            "enlarged": self.enlarged,
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
        kind = {1: "gray", 3: "RGB", 4: "RGBA"}[index.channels]
        lines = [
            f"{index.folder}: {self.kept} pictures, {height} x {width} {kind} {index.picture_format}, "
            f"{size:.1f} MB in {len(index.shards)} shard{'s' * (len(index.shards) > 1)}"
        ]
        if index.label_names:
            empty = len(index.label_names) - len(set(index.rows["label"].tolist()))
            lines.append(_line(len(index.label_names), "classes" + f", {empty} of them empty" * (empty > 0)))
        lines.append(_line(self.enlarged, f"enlarged: smaller than {height} x {width}"))
        lines.append(_line(sum(self.excluded.values()), "excluded"))
        if idle := [_shown(pattern) for pattern, count in self.excluded.items() if not count]:
            lines.append(f"{'':9}took nothing away: {', '.join(idle)}")
        lines.append(_line(len(self.skipped), "skipped"))
        lines += describe_skipped(self.skipped)
        if self.others:
            endings = ", ".join(
                f"{count} {_shown(ending)}" for ending, count in list(self.others.items())[:5]
            )
            lines.append(_line(sum(self.others.values()), f"other files: {endings}"))
        return "\n".join([*lines, f"the whole list: {index.folder / 'report.json'}"])


def describe_skipped(skipped: tuple[Skipped, ...]) -> list[str]:
    """Say for each reason how many files were skipped, and name a few; the most frequent reason first."""
    lines = []
    for reason, count in Counter(one.reason for one in skipped).most_common():
        names = [_shown(one.file) for one in skipped if one.reason == reason]
        more = ", ..." if count > NUM_EXAMPLES else ""
        lines.append(f"{_line(count, reason)}: {', '.join(names[:NUM_EXAMPLES])}{more}")
    return lines


def _line(count: int, text: str) -> str:
    return f"{count:8} {text}"


def _shown(name: str) -> str:
    """Make a file name safe to print: archives may hold control characters, and folders broken Unicode."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def prepare(
    *,
    source: str,
    out: str,
    resolution: Resolution,
    channels: Channels = 3,
    exclude: tuple[str, ...] = (),
    format: PictureFormat = "png",
    labels: str | None = None,
    num_workers: CountOrZero | None = None,
    samples_per_shard: Count = 1024,
) -> Report:
    """Turn a folder, a zip or a tar of pictures into a data set.

    Reads PNG, JPEG, WebP and TIFF. Each picture is turned upright, its centre cropped to the aspect ratio
    and scaled: down with a box filter, up bicubic. The order is that of the sorted paths, so equal pictures
    make equal shards.

    Args:
        source: a folder, .zip or .tar of pictures.
        out: the folder to write; it must not exist.
        resolution: of every picture, one number or [height, width].
        channels: 1 gray, 3 RGB (transparency on white), 4 RGBA.
        exclude: patterns such as icons or '*button*' to leave out, matched with paths, folder and file names.
        format: png, jpg or webp (lossless), as the pictures are stored.
        labels: folders (the first folder is the class), or a .csv (file,label) or .json file; null for none.
        num_workers: processes that decode; 0 for none but this one, null for one a core.
        samples_per_shard: how many pictures one tar file holds.

    Returns:
        What was kept and what was not, and why; it is printed too.

    Raises:
        FileNotFoundError: if the source or the label file does not exist.
        FileExistsError: if `out` does.
        ValueError: if there is no picture to keep, a label is missing, or the settings do not fit.
    """
    settings = dict(locals())
    folder, size = Path(out).expanduser(), size_of(resolution)
    _check_settings(folder, format, channels)
    with open_source(Path(source).expanduser()) as files:
        selection = select(files, exclude)
        _check_pictures(source, files, selection)
        classes = read_labels(labels, selection.names)
        fit = partial(fit_picture, resolution=size, channels=channels, picture_format=format)
        tally = _Tally(selection)
        results = _in_order(files, selection.names, fit, _count_workers(num_workers))
        with closing(results), closing(tally.samples(results, classes)) as samples:
            index = write(
                folder,
                samples,
                resolution=size,
                channels=channels,
                picture_format=format,
                label_names=classes.names,
                resize_filter=RESIZE_FILTER,
                samples_per_shard=samples_per_shard,
            )
    report = tally.report(index, settings)
    (folder / "report.json").write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
    print(report)
    return report


def _check_settings(folder: Path, picture_format: str, channels: int) -> None:
    if folder.exists():
        raise FileExistsError(f"out '{folder}' is there already; choose another folder or remove it")
    if picture_format == "jpg" and channels == 4:
        raise ValueError("format=jpg cannot store the transparency of channels=4; choose png or webp")


def _check_pictures(source: str, files: Source, selection: Selection) -> None:
    if selection.names:
        return
    seen = [f"{len(files.members)} files were seen"]
    if left_out := sum(selection.excluded.values()):
        seen.append(f"{left_out} excluded")
    if selection.refused:
        name, reason = next(iter(selection.refused.items()))
        seen.append(f"{len(selection.refused)} refused, the first {_shown(name)}: {reason}")
    raise ValueError(f"no pictures in source '{source}': {', '.join(seen)}; read are {', '.join(ENDINGS)}")


def _count_workers(num_workers: int | None) -> int:
    if num_workers is not None:
        return num_workers
    # A batch system may lend fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Tally:
    """Counts what becomes of the pictures while they stream by."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.skipped = [Skipped(name, reason) for name, reason in selection.refused.items()]
        self.kept = 0
        self.enlarged = 0

    def samples(self, results: Results, classes: Labels) -> Generator[Sample, None, None]:
        for name, result in tqdm(results, "prepare", len(self.selection.names), unit="picture", disable=None):
            if isinstance(result, Skipped):
                self.skipped.append(result)
                continue
            self.kept += 1
            self.enlarged += result.enlarged
            yield Sample(result.encoded, result.source_size, label=classes.numbers.get(name), source=name)
        if not self.kept:
            reasons = "\n".join(describe_skipped(tuple(self.skipped)))
            raise ValueError(f"none of the {len(self.skipped)} pictures can be used:\n{reasons}")

    def report(self, index: Index, settings: dict[str, object]) -> Report:
        return Report(
            index,
            self.kept,
            self.enlarged,
            self.selection.excluded,
            tuple(sorted(self.skipped, key=lambda one: one.file)),
            self.selection.others,
            settings,
        )


def fit_picture(
    name: str,
    data: bytes,
    *,
    resolution: tuple[int, int],
    channels: int,
    picture_format: str,
) -> Fitted | Skipped:
    """Make one file's bytes what a shard holds, or say why that cannot be; this runs in a worker."""
    try:
        picture = read_picture(data, resolution, channels)
    except PictureError as error:
        return Skipped(name, error.reason, error.detail)
    return Fitted(encode(picture.pixels, picture_format), picture.source_size, picture.enlarged)


def _read(files: Source, name: str) -> bytes | Skipped:
    try:
        return files.read(name)
    except PictureError as error:
        return Skipped(name, error.reason, error.detail)


def _in_order(
    files: Source,
    names: list[str],
    fit: Callable[[str, bytes], Fitted | Skipped],
    workers: int,
) -> Results:
    """Read here, decode in the workers, and hand out in the order of the names."""
    if workers <= 1:
        for name in names:
            data = _read(files, name)
            yield name, data if isinstance(data, Skipped) else fit(name, data)
        return
    # Spawned, as a fork of a process with threads may hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    waiting: deque[tuple[str, Future[Fitted | Skipped]]] = deque()
    near = names[0]
    try:
        for name in names:
            data = _read(files, name)
            waiting.append((name, _done(data) if isinstance(data, Skipped) else pool.submit(fit, name, data)))
            if len(waiting) >= AHEAD * workers:
                near, future = waiting.popleft()
                yield near, future.result()
        while waiting:
            near, future = waiting.popleft()
            yield near, future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"a worker died at '{_shown(near)}' or a picture soon after; if the memory was full, "
            f"lower num_workers, else exclude the picture that num_workers=0 dies at"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _done(result: Skipped) -> "Future[Fitted | Skipped]":
    future: Future[Fitted | Skipped] = Future()
    future.set_result(result)
    return future


def _start_worker() -> None:
    # An interrupt is the main process's affair, and when that is killed its workers should not outlive it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
