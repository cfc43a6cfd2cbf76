"""What happens to each picture on its way into a set: frame off, filters, crop, scale, variants, encoding.

A treatment is a pure function of a file's name and bytes, so it can run in any worker and in any order.
"""

import zlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image

from kaleidogan.data.preparing.filters import Limits, judge, margins, measure
from kaleidogan.data.preparing.fitting import Crop, Filter, fit
from kaleidogan.data.preparing.frames import remove_frame
from kaleidogan.data.preparing.pictures import PictureError, open_picture
from kaleidogan.data.preparing.variants import machineray_variants
from kaleidogan.data.preparing.watermark import Overlay
from kaleidogan.data.shards import encode

Frames = Literal["keep", "machineray", "remove"]
Variants = Literal["none", "machineray"]


@dataclass(frozen=True)
class Part:
    """One picture as it goes into a shard."""

    encoded: bytes
    enlarged: bool


@dataclass(frozen=True)
class Treated:
    """What one file became.

    Attributes:
        parts: its crops and variants.
        source_size: (height, width) of the upright source, its frame taken off, in pixels.
        fingerprint: 64 bits by which copies are found; 0 where no one asks.
        margin: by how much it passed the filter that it passed most narrowly, relative to the limit.
        filter: which filter that was.
        unframed: whether a frame was taken off.
    """

    parts: tuple[Part, ...]
    source_size: tuple[int, int]
    fingerprint: int = 0
    margin: float | None = None
    filter: str = ""
    unframed: bool = False


@dataclass(frozen=True)
class Skipped:
    """One file that was not taken.

    Attributes:
        file: its path within the source.
        reason: the kind of fault.
        detail: its particulars.
        margin: by how much it failed a filter, as in `Treated`.
    """

    file: str
    reason: str
    detail: str = ""
    margin: float | None = None


@dataclass(frozen=True)
class Treatment:
    """What is done to every picture; see `prepare.prepare` for what the settings mean."""

    resolution: tuple[int, int]
    channels: int = 3
    picture_format: str = "png"
    crop: Crop = "center"
    resize: Filter = "box"
    ratio: float | None = None
    frames: Frames = "keep"
    variants: Variants = "none"
    limits: Limits = field(default_factory=Limits)
    fingerprints: bool = False
    overlay: Overlay | None = None
    max_watermark: float | None = None

    def __call__(self, name: str, data: bytes) -> Treated | Skipped:
        """Make one file's bytes what shards hold, or say why that cannot be."""
        try:
            picture = open_picture(data, self.channels)
            whole = picture.size
            if self.frames != "keep":
                picture = remove_frame(picture, "machineray" if self.frames == "machineray" else "robust")
            near, fingerprint, skipped = self._judge(name, picture)
            if skipped:
                return skipped
            fitted = fit(picture, self.resolution, self.crop, self.resize, self.ratio)
        except PictureError as error:
            return Skipped(name, error.reason, error.detail)
        parts = []
        for number, one in enumerate(fitted):
            parts.append(Part(encode(one.pixels, self.picture_format), one.enlarged))
            if self.variants == "machineray":
                seed = zlib.crc32(f"{name}:{number}".encode())
                for variant in machineray_variants(Image.fromarray(one.pixels), seed):
                    parts.append(Part(encode(np.asarray(variant), self.picture_format), one.enlarged))
        margin, filter_ = near or (None, "")
        size = (picture.height, picture.width)
        return Treated(tuple(parts), size, fingerprint, margin, filter_, picture.size != whole)

    def _judge(self, name: str, picture: Image.Image) -> tuple[tuple[float, str] | None, int, Skipped | None]:
        """Ask the filters: how narrow it was and for which, the fingerprint, and what is wrong."""
        found: dict[str, float] = {}
        fingerprint = 0
        if self.limits != Limits() or self.fingerprints:
            measures = measure(picture)
            fingerprint = measures.fingerprint
            found = margins(measures, self.limits)
            if fault := judge(measures, self.limits):
                return None, 0, Skipped(name, fault.reason, fault.detail, found[fault.filter])
        if self.overlay is not None and self.max_watermark is not None:
            score = self.overlay.score(picture)
            found["watermark"] = (1 - score) / (1 - self.max_watermark) - 1
            if score >= self.max_watermark:
                detail = f"agrees by {score:.2f} with what others have, >= {self.max_watermark:g}"
                return None, 0, Skipped(name, "a watermark, by the looks", detail, found["watermark"])
        near = min(((margin, key) for key, margin in found.items()), default=None)
        return near, fingerprint, None
