"""`kaleidogan prepare`: a folder, zip or tar of pictures becomes a data set of shards.

Nothing is left out in silence: what is kept, enlarged, excluded and skipped is counted, shown at the end,
listed in the set's `report.json` and drawn on sheets. A run that was killed is gone on with by the next.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import PIL
from annotated_types import Ge, Le
from PIL import Image
from tqdm import tqdm

from kaleidogan import __version__
from kaleidogan.data.preparing.captions import CREDITS, read_captions, read_provenance
from kaleidogan.data.preparing.filters import Duplicates, Limits
from kaleidogan.data.preparing.labels import Labels, read_labels
from kaleidogan.data.preparing.pictures import ENDINGS, PictureError, upright, upright_size
from kaleidogan.data.preparing.report import Near, Report, describe_skipped, nearest
from kaleidogan.data.preparing.sources import Selection, Source, open_source, select
from kaleidogan.data.preparing.treatment import Skipped, Treated, Treatment
from kaleidogan.data.preparing.watermark import MAX_PICTURES, Overlay, estimate
from kaleidogan.data.preparing.workers import in_order, printable
from kaleidogan.data.shards import Description, Index, Sample
from kaleidogan.data.writing import State, open_aside, write_shards
from kaleidogan.settings import (
    Channels,
    Count,
    CountOrZero,
    Fraction,
    PictureFormat,
    Positive,
    Resolution,
    count_workers,
    size_of,
)

Results = Generator[tuple[str, Treated | Skipped], None, None]


def prepare(
    *,
    source: str,
    out: str,
    resolution: Resolution,
    channels: Channels = 3,
    exclude: tuple[str, ...] = (),
    format: PictureFormat = "png",
    crop: Literal["center", "three", "letterbox", "squash", "ratio", "none"] = "center",
    resize: Literal["box", "bilinear", "hamming", "bicubic", "lanczos"] = "box",
    frames: Literal["keep", "machineray", "remove"] = "keep",
    variants: Literal["none", "machineray"] = "none",
    min_side: Count | None = None,
    min_sharpness: Positive | None = None,
    max_emptiness: Fraction | None = None,
    duplicates: Annotated[int, Ge(0), Le(63)] | None = None,
    max_watermark: Fraction | None = None,
    labels: str | None = None,
    captions: str | None = None,
    num_workers: CountOrZero | None = None,
    samples_per_shard: Count = 1024,
) -> Report:
    """Turn a folder, a zip or a tar of pictures into a data set.

    Reads PNG, JPEG, WebP and TIFF. Each picture is turned upright, filtered, cropped and scaled. The order is
    that of the sorted paths, so equal pictures make equal shards, also when a killed run is gone on with by
    the same command.

    Args:
        source: a folder, .zip or .tar of pictures, or a folder of .tar shards.
        out: the folder to write; it must not exist.
        resolution: of every picture, one number or [height, width].
        channels: 1 gray, 3 RGB (transparency on white), 4 RGBA.
        exclude: patterns such as icons or '*button*' to leave out, matched with paths, folder and file names.
        format: png, jpg or webp (lossless), as the pictures are stored.
        crop: center; three (left, centre, right or top, centre, bottom); letterbox (on black); squash; ratio
            (the set's mean shape, squashed, and remembered); none (pictures must have the shape already).
        resize: the filter that shrinks; it moves published FIDs, most of which used box or lanczos.
        frames: keep; remove what frames a painting; or machineray, that project's own narrow search.
        variants: none; or machineray, six turned, tilted and tinted variants of each picture beside it.
        min_side: leave out what has a shorter side of fewer pixels.
        min_sharpness: leave out the blurred, below 0.35 or so.
        max_emptiness: leave out what is nearly of one colour, above 0.98 or so.
        duplicates: leave out what differs from an earlier picture in so few of 64 bits: 6 for photographs,
            0 for icons.
        max_watermark: leave out what agrees that much with an overlay that many pictures share; 0.3 is good.
        labels: folders (the first folder is the class), or a .csv (file,label or file and columns of numbers)
            or .json file; or cls (a file beside each picture, in shards); null for none.
        captions: txt (a text file beside each picture), a .csv (file,caption) or .json file; null for none.
        num_workers: processes that decode; 0 for none but this one, null for one a core.
        samples_per_shard: how many pictures one tar file holds.

    Returns:
        What was kept and what was not, and why; it is printed too.

    Raises:
        FileNotFoundError: if the source or the label file does not exist.
        FileExistsError: if `out` does.
        ValueError: if there is no picture to keep, a label is missing, or the settings do not fit.
    """
    settings: dict[str, Any] = {k: v for k, v in locals().items() if k not in ("out", "num_workers")}
    folder, size = Path(out).expanduser(), size_of(resolution)
    _check_settings(folder, size, settings)
    treatment = Treatment(
        resolution=size,
        channels=channels,
        picture_format=format,
        crop=crop,
        resize=resize,
        frames=frames,
        variants=variants,
        limits=Limits(min_side, min_sharpness, max_emptiness),
        fingerprints=duplicates is not None,
        max_watermark=max_watermark,
    )
    workers = count_workers(num_workers)
    with open_source(Path(source).expanduser()) as files:
        selection = select(files, exclude)
        _check_pictures(source, files, selection)
        classes = read_labels(labels, selection.names, files)
        texts = read_captions(captions, selection.names, files)
        tally = _Tally(selection, classes, texts, read_provenance(files), duplicates)
        key = _key(settings, files, [selection.names, asdict(classes), texts])
        with open_aside(folder, key) as aside:
            treatment = _look_ahead(files, selection.names, treatment, workers)
            tally.restore(aside.states)
            results = in_order(files, selection.names[tally.next :], treatment, workers)
            with closing(results), closing(tally.samples(results)) as samples:
                write_shards(aside, samples, format, samples_per_shard, tally.state)
            tally.check()
            index = aside.seal(_describe(treatment, classes))
            report = tally.report(index, folder, settings)
            _write_report(report, aside.set, files)
            aside.publish()
    print(report)
    return report


def _check_settings(folder: Path, size: tuple[int, int], settings: dict[str, Any]) -> None:
    if folder.exists():
        raise FileExistsError(f"out '{folder}' is there already; choose another folder or remove it")
    if settings["format"] == "jpg" and settings["channels"] == 4:
        raise ValueError("format=jpg cannot store the transparency of channels=4; choose png or webp")
    if settings["variants"] == "machineray" and (settings["channels"] != 3 or size[0] != size[1]):
        raise ValueError(
            "variants=machineray turns and tints pictures: it needs channels=3 and a square size"
        )


def _check_pictures(source: str, files: Source, selection: Selection) -> None:
    if selection.names:
        return
    seen = [f"{len(files.members)} files were seen"]
    if left_out := sum(selection.excluded.values()):
        seen.append(f"{left_out} excluded")
    if selection.refused:
        name, reason = next(iter(selection.refused.items()))
        seen.append(f"{len(selection.refused)} refused, the first {printable(name)}: {reason}")
    raise ValueError(f"no pictures in source '{source}': {', '.join(seen)}; read are {', '.join(ENDINGS)}")


def _key(settings: dict[str, Any], files: Source, said: list[Any]) -> str:
    """Say what is written: a run may go on with another's work if this is the same."""
    members = [(member.name, member.stamp) for member in files.members]
    what = [settings, members, said, PIL.__version__, __version__]
    return hashlib.sha256(json.dumps(what, ensure_ascii=True).encode()).hexdigest()


def _describe(treatment: Treatment, classes: Labels) -> Description:
    """Say what holds for all pictures of the set."""
    return Description.model_validate(
        {
            "resolution": treatment.resolution,
            "channels": treatment.channels,
            "picture_format": treatment.picture_format,
            "label_names": classes.names,
            "condition_names": classes.condition_names,
            "resize_filter": treatment.resize,
            "crop": treatment.crop,
            "aspect_ratio": treatment.ratio,
        }
    )


def _look_ahead(files: Source, names: list[str], treatment: Treatment, workers: int) -> Treatment:
    """Find out what depends on all pictures: their mean shape, and what overlay they share."""
    if treatment.crop == "ratio":
        treatment = replace(treatment, ratio=_mean_ratio(files, names, workers))
    if treatment.max_watermark is not None:
        treatment = replace(treatment, overlay=_find_overlay(files, names, workers))
    return treatment


def _mean_ratio(files: Source, names: list[str], workers: int) -> float:
    results = in_order(files, names, picture_ratio, workers)
    with closing(results), tqdm(results, "shapes", len(names), unit="picture", disable=None) as shown:
        ratios = [ratio for _, ratio in shown if isinstance(ratio, float)]
    if not ratios:
        raise ValueError(f"none of the {len(names)} pictures can be read")
    return round(math.fsum(ratios) / len(ratios), 6)


def _find_overlay(files: Source, names: list[str], workers: int) -> Overlay | None:
    places = sorted({round(k * (len(names) - 1) / (MAX_PICTURES - 1)) for k in range(MAX_PICTURES)})
    results = in_order(files, [names[place] for place in places], open_small, workers)
    with closing(results), tqdm(results, "overlay", len(places), unit="picture", disable=None) as shown:
        return estimate([picture for _, picture in shown if isinstance(picture, Image.Image)])


def picture_ratio(name: str, data: bytes) -> float | None:
    """Width / height of an upright picture, from its header; this runs in a worker."""
    try:
        height, width = upright_size(data)
    except PictureError:
        return None
    return width / height


def open_small(name: str, data: bytes) -> Image.Image | None:
    """A picture as the search for overlays needs it; this runs in a worker."""
    try:
        return upright(data)
    except PictureError:
        return None


def _write_report(report: Report, folder: Path, files: Source) -> None:
    text = json.dumps(report.as_dict(), indent=1) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    report.draw(folder, files)
    if any(member.name == CREDITS for member in files.members):
        (folder / CREDITS).write_bytes(files.read(CREDITS))


class _Tally:
    """Counts what becomes of the pictures while they stream by; its state is what a killed run needs."""

    def __init__(
        self,
        selection: Selection,
        classes: Labels,
        captions: dict[str, str],
        provenance: dict[str, dict[str, object]],
        duplicates: int | None,
    ) -> None:
        self._selection = selection
        self._classes = classes
        self._captions = captions
        self._provenance = provenance
        self.skipped = [Skipped(name, reason) for name, reason in selection.refused.items()]
        self._told = len(self.skipped)
        self._near: list[Near] = []
        self._counts: Counter[str] = Counter()
        self._duplicates = None if duplicates is None else Duplicates(duplicates)
        self._fingerprints: list[int] = []
        self._kept: list[str] = []
        """Names by the number that `Duplicates` gives, and what of both is not told yet."""
        self._new: list[str] = []
        self.next = 0
        """The picture whose samples are being taken."""
        self._part = 0
        """How many of them were."""

    def restore(self, states: list[State]) -> None:
        """Go on from what a killed run said after each of its shards."""
        if not states:
            return
        last = states[-1]
        self.skipped += [Skipped(**one) for state in states for one in state["skipped"]]
        self._told = len(self.skipped)
        self._near = [Near(**one) for one in last["near"]]
        self._counts = Counter(last["counts"])
        self._kept = [name for state in states for name in state["kept"]]
        if self._duplicates is not None:
            before = [one for state in states for one in state["fingerprints"]]
            self._duplicates = Duplicates(self._duplicates.distance, before)
        self.next, self._part = last["next"], last["part"]
        print(f"going on with what was begun: {self.next} of {len(self._selection.names)} pictures are done")

    def samples(self, results: Results) -> Generator[Sample, None, None]:
        total = len(self._selection.names)
        for name, result in tqdm(results, "prepare", total, unit="picture", initial=self.next, disable=None):
            # One that a shard ended in was counted by the run that wrote the shard.
            counted = self._part > 0
            found = result if counted else self._accept(name, result)
            if isinstance(found, Skipped):
                self.skipped.append(found)
            else:
                yield from self._parts(name, found)
            self.next, self._part = self.next + 1, 0

    def _accept(self, name: str, result: Treated | Skipped) -> Treated | Skipped:
        """Count a picture, and look whether it is a copy."""
        if isinstance(result, Treated) and self._duplicates is not None:
            if (number := self._duplicates.find(result.fingerprint)) is not None:
                return Skipped(name, "a copy of another picture", f"of {self._kept[number]}")
            self._duplicates.add(result.fingerprint)
            self._fingerprints.append(result.fingerprint)
            self._kept.append(name)
            self._new.append(name)
        if result.margin is not None:
            reason = result.reason if isinstance(result, Skipped) else result.filter
            self._near = nearest([*self._near, Near(result.margin, name, reason)])
        if isinstance(result, Treated):
            self._counts.update(pictures=1, captions=name in self._captions, unframed=result.unframed)
        return result

    def _parts(self, name: str, treated: Treated) -> Iterator[Sample]:
        provenance = self._provenance.get(name)
        for number in range(self._part, len(treated.parts)):
            part = treated.parts[number]
            self._counts["enlarged"] += part.enlarged
            self._part = number + 1
            yield Sample(
                part.encoded,
                treated.source_size,
                label=self._classes.numbers.get(name),
                condition=self._classes.conditions.get(name, ()),
                caption=self._captions.get(name),
                source=name,
                part=number,
                about={"provenance": provenance} if provenance else None,
            )

    def state(self) -> State:
        """Say what a run needs that goes on after the shard that ends here."""
        told, self._told = self._told, len(self.skipped)
        fingerprints, self._fingerprints = self._fingerprints, []
        new, self._new = self._new, []
        return {
            "next": self.next,
            "part": self._part,
            "counts": dict(self._counts),
            "skipped": [asdict(one) for one in self.skipped[told:]],
            "near": [asdict(one) for one in self._near],
            "fingerprints": fingerprints,
            "kept": new,
        }

    def check(self) -> None:
        """Refuse to make a set of nothing."""
        if not self._counts["pictures"]:
            reasons = "\n".join(describe_skipped(tuple(self.skipped)))
            raise ValueError(f"none of the {len(self.skipped)} pictures can be used:\n{reasons}")

    def report(self, index: Index, place: Path, settings: dict[str, object]) -> Report:
        return Report(
            index,
            place,
            self._counts["pictures"],
            self._counts["captions"],
            self._counts["enlarged"],
            self._counts["unframed"],
            self._selection.excluded,
            tuple(sorted(self.skipped, key=lambda one: one.file)),
            self._selection.others,
            tuple(self._near),
            settings,
        )
