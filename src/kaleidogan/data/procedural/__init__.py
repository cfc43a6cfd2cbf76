"""Procedural art: seeded pictures by hand-made algorithms, with captions, that no licence binds.

They are what learnt generation is compared with, and a data set that is there on every machine. Every
picture is drawn from (seed, number) alone, in units of its shorter side: the same composition at any size.
"""

import difflib
import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from kaleidogan.data import shards
from kaleidogan.data.procedural import shades, shapes
from kaleidogan.data.procedural.canvas import Canvas
from kaleidogan.data.procedural.palettes import choose_palette
from kaleidogan.data.writing import write
from kaleidogan.settings import Count, Seed, count_workers

STYLES = {
    "squares": shapes.paint_squares,
    "fields": shades.paint_fields,
    "circles": shapes.paint_circles,
    "triangles": shapes.paint_triangles,
    "stripes": shapes.paint_stripes,
    "grid": shapes.paint_grid,
    "tiles": shapes.paint_tiles,
    "flow": shapes.paint_flow,
    "fractal": shades.paint_fractal,
}
"""By name, what paints a canvas in a palette and returns the caption's words; each caption has the name."""
CHUNK = 64
"""Pictures that a worker draws at a time."""


@dataclass(frozen=True)
class Picture:
    """A drawn picture: pixels [h, w, c], what it shows in words, and the name of its style."""

    pixels: NDArray[np.uint8]
    caption: str
    style: str


class Gallery:
    """Draws abstract pictures in several styles and colour schemes, in turn.

    Args:
        num_images: how many pictures the set has; a larger set begins with the same pictures.
        seed: another seed, other pictures.
        styles: names out of `STYLES`, in the order of their labels; None means all.

    Raises:
        ValueError: if a style is unknown (names the nearest one there is), none is given or one is twice.
    """

    def __init__(
        self, *, num_images: Count = 6000, seed: Seed = 0, styles: tuple[str, ...] | None = None
    ) -> None:
        self.num_images = num_images
        self.seed = seed
        self._styles = tuple(STYLES if styles is None else styles)
        for style in self._styles:
            if style not in STYLES:
                nearest = difflib.get_close_matches(style, STYLES, n=1, cutoff=0)[0]
                raise ValueError(
                    f"unknown style '{style}'; the nearest is '{nearest}' of {', '.join(STYLES)}"
                )
        if not self._styles or len(set(self._styles)) < len(self._styles):
            raise ValueError(f"styles must be at least one and different, not {list(self._styles)}")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The styles' names, by label."""
        return self._styles

    def draw(self, number: int, resolution: tuple[int, int], channels: int = 3) -> Picture:
        """Draw one picture, a pure function of the seed, the styles and the number.

        Args:
            number: from 0 up; it may lie beyond `num_images`.
            resolution: (height, width) in pixels.
            channels: 1 (gray), 3 (RGB) or 4 (RGBA, opaque).
        """
        style = self._styles[number % len(self._styles)]
        rng = np.random.Generator(np.random.Philox([self.seed, number]))
        palette = choose_palette(rng)
        canvas = Canvas(resolution, palette.ground)
        caption = f"an abstract painting with {STYLES[style](canvas, palette, rng)}"
        pixels = canvas.pixels()
        if channels != 3:
            pixels = np.array(Image.fromarray(pixels).convert(shards.MODES[channels]))
        return Picture(pixels.reshape(*resolution, channels), caption, style)

    def samples(
        self, resolution: tuple[int, int], channels: int, num_workers: int | None = None
    ) -> Iterator[shards.Sample]:
        """Draw all pictures in order, as PNG samples for a data set.

        Args:
            resolution: (height, width) in pixels.
            channels: 1, 3 or 4.
            num_workers: processes; None means one a CPU core, 0 and 1 mean this process alone.
        """
        num_workers = count_workers(num_workers)
        starts = range(0, self.num_images, CHUNK)
        chunks = [range(start, min(start + CHUNK, self.num_images)) for start in starts]
        if min(num_workers, len(chunks)) <= 1:
            for numbers in chunks:
                yield from self._draw_samples(numbers, resolution, channels)
            return
        # Spawned, not forked: the caller may have threads, and a lock that one of them holds stays locked.
        pool = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"))
        try:
            waiting = iter(chunks)
            pending: deque[Future[list[shards.Sample]]] = deque()
            # Two chunks a worker under way keep all busy, and memory small however slow the reader is.
            while True:
                for numbers in islice(waiting, 2 * num_workers - len(pending)):
                    pending.append(pool.submit(self._draw_samples, numbers, resolution, channels))
                if not pending:
                    return
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _draw_samples(
        self, numbers: range, resolution: tuple[int, int], channels: int
    ) -> list[shards.Sample]:
        samples = []
        for number in numbers:
            picture = self.draw(number, resolution, channels)
            encoded = shards.encode(picture.pixels, "png")
            label = self._styles.index(picture.style)
            samples.append(shards.Sample(encoded, resolution, label, caption=picture.caption))
        return samples

    def folder_name(self, resolution: tuple[int, int], channels: int) -> str:
        """Name a folder by all that its pictures depend on."""
        styles = "" if self._styles == tuple(STYLES) else f"-{'-'.join(self._styles)}"
        size = f"{resolution[0]}x{resolution[1]}x{channels}"
        return f"procedural-{size}-{self.num_images}-seed{self.seed}{styles}"

    def write(self, folder: Path, resolution: tuple[int, int], channels: int) -> shards.Index:
        """Draw all pictures into a new data set; a progress bar goes to stderr.

        Args:
            folder: where the set will stand; it must not exist.
            resolution: (height, width) in pixels.
            channels: 1, 3 or 4.

        Raises:
            FileExistsError: if the folder is there already.
        """
        drawn = tqdm(
            self.samples(resolution, channels),
            desc=f"drawing {self.num_images} pictures",
            total=self.num_images,
            unit="picture",
        )
        description = shards.Description.model_validate(
            {"resolution": resolution, "channels": channels, "label_names": self.label_names}
        )
        return write(folder, iter(drawn), description)
