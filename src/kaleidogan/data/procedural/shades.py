"""The styles that are formulas over coordinates: soft colour fields and fractals.

Each paints one picture and returns what a caption says of it, as the styles made of shapes do.
"""

import numpy as np
from numpy.typing import NDArray

from kaleidogan.data.procedural.canvas import Canvas
from kaleidogan.data.procedural.palettes import Palette, list_names

BULBS = (-0.1226 + 0.7449j, -1.0 + 0.0j, 0.2823 + 0.53j, -0.5044 + 0.5628j)
"""Centres of round parts of the Mandelbrot set, of periods 3, 2, 4 and 5."""
NUM_STEPS = 40
ESCAPE = 64.0
NUM_BANDS = 6
EDGE = 0.3
"""Share of a fractal's band in which it passes into the next; sharper edges look harsh between thin bands."""
SAMPLES = 2
"""Samples a side of each pixel of a fractal."""


def smoothstep(t: NDArray[np.floating]) -> NDArray[np.floating]:
    """Compute the cubic that rises from 0 at t = 0 to 1 at t = 1, level at both and beyond."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def paint_fields(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> str:
    """Paint two or three stacked rectangles with soft, cloudy edges, after Rothko."""
    x, y = canvas.coordinates()
    count = int(rng.integers(2, 4))
    margin, gap = rng.uniform(0.05, 0.11), rng.uniform(0.01, 0.05)
    # At least a pixel wide, lest the edge have steps in a small picture.
    softness = max(rng.uniform(0.03, 0.07), 1 / canvas.scale)
    shares = rng.uniform(0.8, 1.6, count)
    bounds = margin + np.append(0, np.cumsum(shares / shares.sum())) * (canvas.height - 2 * margin)

    def inside(place: NDArray[np.float64], low: float, high: float) -> NDArray[np.floating]:
        return smoothstep((place - low) / softness + 0.5) * smoothstep((high - place) / softness + 0.5)

    picture = np.full((*canvas.resolution, 3), palette.ground.rgb, np.float64)
    for number in range(count):
        inset = margin + rng.uniform(-0.02, 0.03)
        (along, down), (left, top) = rng.uniform(2, 6, 2), rng.uniform(0, 2 * np.pi, 2)
        cloud = 0.93 + 0.07 * np.sin(along * x + left) * np.sin(down * y + top)
        cover = cloud * inside(x, inset, canvas.width - inset)
        cover = cover * inside(y, bounds[number] + gap / 2, bounds[number + 1] - gap / 2)
        picture += (np.array(palette.paints[number].rgb) - picture) * cover[:, :, None]
    canvas.replace(picture)
    return f"soft {list_names(palette.paints[:count])} fields on {palette.ground.name}"


def choose_constant(rng: np.random.Generator) -> complex:
    """Draw a constant c inside the Mandelbrot set, near its edge, so that the Julia set has an inside.

    A fixed point of z^2 + c with multiplier m has c = m / 2 - m^2 / 4; |m| < 1 is the main cardioid.
    """
    if rng.random() < 0.6:
        return complex(BULBS[rng.integers(len(BULBS))] + complex(*rng.uniform(-0.015, 0.015, 2)))
    # Towards an angle of 0 the Julia set is next to a circle.
    multiplier = rng.uniform(0.88, 0.97) * np.exp(1j * rng.uniform(0.6, 2 * np.pi - 0.6))
    return complex(multiplier / 2 - multiplier**2 / 4)


def escape_times(z: NDArray[np.complexfloating], c: complex) -> NDArray[np.float32]:
    """Count the steps of z -> z^2 + c until |z| exceeds 64; infinity where it does not within 40.

    The count is made smooth by subtracting log2 of log2 |z|, which each squaring raises by one.
    """
    shape = z.shape
    z, where = z.astype(np.complex64).ravel(), np.arange(z.size)
    times = np.full(z.size, np.inf, np.float32)
    for step in range(NUM_STEPS):
        z = z * z + np.complex64(c)
        size = np.abs(z)
        out = size > ESCAPE
        times[where[out]] = step - np.log2(np.log2(size[out]))
        z, where = z[~out], where[~out]
    return times.reshape(shape)


def paint_fractal(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> str:
    """Paint a Julia set: its inside is the ground's colour, around it lie bands of equal escape time."""
    x, y = canvas.coordinates(SAMPLES)
    extent, turn = rng.uniform(2.2, 2.8), np.exp(1j * rng.uniform(0, 2 * np.pi))
    z = ((x - canvas.width / 2) + 1j * (y - canvas.height / 2)) * extent * turn
    times = escape_times(z, choose_constant(rng))
    outside = np.isfinite(times)
    # Bands of equal area, whatever the constant: no paint is lost in a hair's breadth.
    knots = np.quantile(times[outside], np.linspace(0, 1, NUM_BANDS + 1))
    level = np.interp(times, knots, np.arange(NUM_BANDS + 1))
    band = np.minimum(level.astype(int), NUM_BANDS - 1)
    share = smoothstep((level - band - 1 + EDGE) / EDGE)[:, :, None]
    colors = np.array([paint.rgb for paint in palette.paints], np.float64)
    picture = colors[band % 3] * (1 - share) + colors[(band + 1) % 3] * share
    picture[~outside] = palette.ground.rgb
    rows, columns = canvas.resolution
    canvas.replace(picture.reshape(rows, SAMPLES, columns, SAMPLES, 3).mean(axis=(1, 3)))
    return f"a {palette.ground.name} fractal in bands of {list_names(palette.paints)}"
