"""Anti-aliased drawing in units of the picture's shorter side, so that a composition fits every size."""

import aggdraw
import numpy as np
from numpy.typing import NDArray

from kaleidogan.data.procedural.palettes import Paint

NO_OUTLINE = aggdraw.Pen((0, 0, 0), 0)
"""Without any pen, aggdraw makes a filled shape wider by a quarter of a pixel on every side."""


class Canvas:
    """A picture being painted: x from 0 to `width`, y from 0 to `height`, the shorter of them 1.

    Args:
        resolution: (height, width) in pixels.
        ground: what the whole picture is painted with at first.
    """

    def __init__(self, resolution: tuple[int, int], ground: Paint) -> None:
        self.resolution = resolution
        self.scale = min(resolution)
        self.height, self.width = (side / self.scale for side in resolution)
        self._draw = aggdraw.Draw("RGB", resolution[::-1], ground.rgb)

    def polygon(self, points: NDArray[np.float64], paint: Paint) -> None:
        """Fill a polygon with corners [n, 2]."""
        self._draw.polygon((points * self.scale).ravel().tolist(), NO_OUTLINE, aggdraw.Brush(paint.rgb))

    def rectangle(self, left: float, top: float, right: float, bottom: float, paint: Paint) -> None:
        """Fill an upright rectangle."""
        self.polygon(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), paint)

    def disc(self, x: float, y: float, radius: float, paint: Paint) -> None:
        """Fill a circle."""
        # So many corners that none of the sides is a twentieth of a pixel inside the circle.
        angles = np.linspace(0, 2 * np.pi, int(10 * np.sqrt(radius * self.scale)) + 4, endpoint=False)
        self.polygon(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius + (x, y), paint)

    def coordinates(self, samples: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the places of the pixels' samples, each pixel split into samples x samples.

        Returns:
            x [1, w * samples] and y [h * samples, 1], which broadcast to a picture.
        """
        rows, columns = (side * samples for side in self.resolution)
        x = (np.arange(columns) + 0.5) / (self.scale * samples)
        y = (np.arange(rows) + 0.5) / (self.scale * samples)
        return x[None, :], y[:, None]

    def replace(self, colors: NDArray[np.floating]) -> None:
        """Replace every pixel; colours [h, w, 3] from 0 to 255."""
        self._draw.frombytes(np.rint(colors).astype(np.uint8).tobytes())

    def pixels(self) -> NDArray[np.uint8]:
        """Copy out the picture, [h, w, 3]."""
        return np.frombuffer(self._draw.tobytes(), np.uint8).reshape(*self.resolution, 3).copy()
