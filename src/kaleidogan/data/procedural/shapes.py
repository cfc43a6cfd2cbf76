"""The styles made of filled shapes: squares, circles, triangles, stripes, grid, tiles and flow.

Each paints one picture and returns what a caption says of it. Every paint that the words name is given to
a shape of its own, and the ground stays in sight, so that captions are true.
"""

import math

import numpy as np
from numpy.typing import NDArray

from kaleidogan.data.procedural.canvas import Canvas
from kaleidogan.data.procedural.palettes import BLACK, WHITE, Paint, Palette, list_names

MIN_SPLIT = 0.4
"""A side shorter than this is not cut."""


def split_cells(canvas: Canvas, count: int) -> list[tuple[float, float]]:
    """Find the centres of square cells, `count` of them along the shorter side, the field of them centred."""
    columns, rows = (int(side * count + 1e-9) for side in (canvas.width, canvas.height))
    left, top = (canvas.width - columns / count) / 2, (canvas.height - rows / count) / 2
    return [(left + (i + 0.5) / count, top + (j + 0.5) / count) for j in range(rows) for i in range(columns)]


def paint_squares(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> str:
    """Paint a grid of nested squares: how many, and where they wander, is drawn for each cell."""
    count = int(rng.integers(2, 5))
    outer = (1 - rng.uniform(0.12, 0.2)) / count
    inner = outer * rng.uniform(0.16, 0.3)
    layers = [*palette.paints[:2], palette.ground] if rng.random() < 0.5 else list(palette.paints)
    for number, (x, y) in enumerate(split_cells(canvas, count)):
        num_nested = int(rng.integers(3, 6 if count < 4 else 5))
        toward = rng.integers(-1, 2, 2) * 0.7
        for layer in range(num_nested):
            side = outer + (inner - outer) * layer / (num_nested - 1)
            cx, cy = np.array((x, y)) + toward * (outer - side) / 2
            paint = palette.paints[number % 3] if layer == 0 else layers[(number + layer) % 3]
            canvas.rectangle(cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2, paint)
    return f"{list_names(palette.paints)} nested squares on {palette.ground.name}"


def scatter(
    canvas: Canvas, rng: np.random.Generator, largest: float, smallest: float, gap: float = 0.02
) -> list[tuple[float, float, float]]:
    """Throw circles that do not touch, the large ones first: (x, y, radius) of each."""
    placed: list[tuple[float, float, float]] = []
    num_throws = int(60 * canvas.width * canvas.height)
    for radius in np.linspace(largest, smallest, num_throws):
        x, y = rng.uniform(0.6 * radius, np.array((canvas.width, canvas.height)) - 0.6 * radius)
        if all(math.hypot(x - a, y - b) > radius + r + gap for a, b, r in placed):
            placed.append((float(x), float(y), float(radius)))
    return placed


def paint_circles(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> str:
    """Paint scattered discs, a field of small targets, or one large target."""
    paints, word = palette.paints, "concentric circles"
    kind = rng.integers(3)
    if kind == 0:
        word = "circles"
        discs = scatter(canvas, rng, rng.uniform(0.18, 0.3), 0.08)
        for number, (x, y, radius) in enumerate(discs):
            canvas.disc(x, y, radius, paints[number % 3])
            if radius > 0.13 and rng.random() < 0.6:
                canvas.disc(x, y, radius * 0.5, paints[(number + 1) % 3])
    elif kind == 1:
        count = int(rng.integers(2, 4))
        radii = np.array((1, 0.7, 0.4)) * rng.uniform(0.4, 0.47) / count
        for x, y in split_cells(canvas, count):
            for radius, layer in zip(radii, rng.permutation(3), strict=True):
                canvas.disc(x, y, radius, paints[layer])
    else:
        x, y = np.array((canvas.width, canvas.height)) * rng.uniform(0.3, 0.7, 2)
        radii = np.cumsum(rng.uniform(0.06, 0.14, 6))
        for number, radius in reversed(list(enumerate(radii * 0.6 / radii[-1]))):
            canvas.disc(x, y, radius, [*paints, palette.ground][number % 4])
    return f"{list_names(paints)} {word} on {palette.ground.name}"


def paint_triangles(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> str:
    """Paint scattered triangles, a quilt of half squares, or a range of peaks."""
    triangles = (_scattered_triangles, _quilt, _peaks)[rng.integers(3)](canvas, rng)
    for corners, number in triangles:
        canvas.polygon(corners, palette.paints[number % 3])
    used = sorted({number % 3 for _, number in triangles})
    return f"{list_names([palette.paints[number] for number in used])} triangles on {palette.ground.name}"


def _scattered_triangles(canvas: Canvas, rng: np.random.Generator) -> list[tuple[NDArray[np.float64], int]]:
    is_upright = rng.random() < 0.5
    triangles = []
    # A triangle fills less than half of its circle: circles may overlap a little.
    for number, (x, y, radius) in enumerate(scatter(canvas, rng, rng.uniform(0.24, 0.34), 0.12, -0.05)):
        turn = -np.pi / 2 if is_upright else rng.uniform(0, 2 * np.pi)
        angles = turn + np.arange(3) * 2 * np.pi / 3
        corners = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
        triangles.append((corners, number))
    return triangles


def _quilt(canvas: Canvas, rng: np.random.Generator) -> list[tuple[NDArray[np.float64], int]]:
    count = int(rng.integers(3, 5))
    cells = split_cells(canvas, count)
    square = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) / count
    turns = rng.integers(4, size=len(cells))
    halves = [np.roll(square + cell, int(turn), axis=0)[:3] for cell, turn in zip(cells, turns, strict=True)]
    return list(zip(halves, rng.permutation(len(cells)).tolist(), strict=True))


def _peaks(canvas: Canvas, rng: np.random.Generator) -> list[tuple[NDArray[np.float64], int]]:
    places = (np.arange(5) + rng.uniform(0.2, 0.8, 5)) / 5 * canvas.width
    tops = canvas.height * (1 - rng.uniform(0.35, 0.95, 5))
    halves = rng.uniform(0.2, 0.36, 5) * canvas.width
    feet = np.full(5, canvas.height)
    corners = np.stack([places, tops, places + halves, feet, places - halves, feet], axis=1).reshape(5, 3, 2)
    # The tall ones stand behind; numbers go from left to right, so that neighbours differ in paint.
    return [(corners[number], int(number)) for number in np.argsort(tops)]


def paint_stripes(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> str:
    """Paint straight or wavy stripes of changing widths: upright, level or diagonal."""
    eighth = rng.integers(4)
    word = ("vertical", "diagonal", "horizontal", "diagonal")[eighth]
    is_wavy = rng.random() < 0.4
    along = np.array((np.cos(eighth * np.pi / 4), np.sin(eighth * np.pi / 4)))
    across = np.array((-along[1], along[0]))
    reach = float(np.hypot(canvas.width, canvas.height))
    widths = rng.uniform(0.07, 0.2, 64)
    amplitude, waves, phase = rng.uniform(0.04, 0.1), rng.uniform(1, 2), rng.uniform(0, 2 * np.pi)
    t = np.linspace(-reach, reach, 96 if is_wavy else 2)
    wave = amplitude * np.sin(2 * np.pi * waves * t + phase) if is_wavy else 0 * t
    cycle = [*palette.paints, palette.ground]
    middle = np.array((canvas.width, canvas.height)) / 2
    for number, start in enumerate(np.cumsum(widths) - reach):
        if start > reach:
            break
        # Each stripe runs on to the far side and the next covers it: no seam between two edges.
        edge = middle + (start + wave)[:, None] * along + t[:, None] * across
        far = middle + reach * 1.5 * along + t[::-1, None] * across
        canvas.polygon(np.concatenate([edge, far]), cycle[number % 4])
    kind = "wavy stripes" if is_wavy else "stripes"
    return f"{word} {list_names(palette.paints)} {kind} on {palette.ground.name}"


def _split(box: NDArray[np.float64], depth: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Cut a box (left, top, right, bottom) in two, and the halves again."""
    sides = box[2:] - box[:2]
    axis = int(sides[1] > sides[0])
    if rng.random() < 0.2 and sides[1 - axis] >= MIN_SPLIT:
        axis = 1 - axis
    if depth == 0 or sides[axis] < MIN_SPLIT:
        return [box]
    first, second = box.copy(), box.copy()
    first[2 + axis] = second[axis] = box[axis] + sides[axis] * rng.uniform(0.3, 0.7)
    return _split(first, depth - 1, rng) + _split(second, depth - 1, rng)


def paint_grid(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> str:
    """Paint colour blocks between thick lines, after Mondrian, or a chart of even blocks."""
    words = f"a grid of {list_names(palette.paints)} blocks on {palette.ground.name}"
    if rng.random() < 0.4:
        count, line = int(rng.integers(3, 5)), rng.uniform(0.022, 0.036)
        half = 0.5 / count - line
        cells = split_cells(canvas, count)
        for (x, y), number in zip(cells, rng.permutation(len(cells)), strict=True):
            canvas.rectangle(x - half, y - half, x + half, y + half, palette.paints[number % 3])
        return words
    boxes = _split(np.array((0, 0, canvas.width, canvas.height)), 4, rng)
    # The largest four show all colours; of the rest, half are ground, as in the originals.
    boxes.sort(key=lambda box: -float(np.prod(box[2:] - box[:2])))
    cycle = [(*palette.paints, palette.ground)[number] for number in rng.permutation(4)]
    line = rng.uniform(0.016, 0.028)
    ink = Paint("white", WHITE) if sum(palette.ground.rgb) < 3 * 80 else Paint("black", BLACK)
    canvas.rectangle(0, 0, canvas.width, canvas.height, ink)
    for number, (left, top, right, bottom) in enumerate(boxes):
        paint = cycle[number % 4] if number < 4 or rng.random() < 0.5 else palette.ground
        canvas.rectangle(left + line, top + line, right - line, bottom - line, paint)
    return f"{words} between {ink.name} lines"


def _band(centre: tuple[float, float], radius: float, thickness: float, quarter: int) -> NDArray[np.float64]:
    """Outline a quarter of a ring, from `quarter` * 90 degrees on."""
    # A little over its ends, where the next tile's arc has the same tangent: no seam between the two.
    angles = np.linspace(-0.04, np.pi / 2 + 0.04, 24) + quarter * np.pi / 2
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate(
        [unit * (radius + thickness / 2), unit[::-1] * (radius - thickness / 2)]
    ) + np.array(centre)


def paint_tiles(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> str:
    """Paint Truchet tiles: each has two quarter rings around opposite corners, and one of two turns."""
    count = int(rng.integers(2, 5))
    columns, rows = (int(np.ceil(side * count - 1e-9)) for side in (canvas.width, canvas.height))
    left, top = (canvas.width - columns / count) / 2, (canvas.height - rows / count) / 2
    turns = rng.integers(2, size=(rows, columns))
    thickness = rng.uniform(0.4, 0.6)
    for share, paint in ((thickness, palette.paints[0]), (thickness * 0.4, palette.paints[1])):
        for (row, column), turn in np.ndenumerate(turns):
            corners = ((0, 0, 0), (1, 1, 2)) if turn else ((1, 0, 1), (0, 1, 3))
            for right, down, quarter in corners:
                corner = (left + (column + right) / count, top + (row + down) / count)
                canvas.polygon(_band(corner, 0.5 / count, share / count, quarter), paint)
    return f"tiles of {list_names(palette.paints[:2])} arcs on {palette.ground.name}"


def paint_flow(canvas: Canvas, palette: Palette, rng: np.random.Generator) -> str:
    """Paint tapering strokes that follow a smooth field of directions."""
    spacing = 0.15
    x, y = (np.arange(-0.1, side + 0.1, spacing) for side in (canvas.width, canvas.height))
    starts = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    starts += rng.uniform(-0.3, 0.3, starts.shape) * spacing
    outlines = _strokes(starts, rng)
    # Bands across the picture, ragged at their edges, and as many strokes of each paint.
    place = np.sin(starts @ rng.uniform(-4, 4, 2) + rng.uniform(0, 2 * np.pi))
    rank = np.argsort(np.argsort(place + rng.normal(0, 0.25, len(starts))))
    for number in rng.permutation(len(starts)):
        canvas.polygon(outlines[number], palette.paints[rank[number] * 3 // len(starts)])
    return f"a flow of {list_names(palette.paints)} strokes on {palette.ground.name}"


def _strokes(
    starts: NDArray[np.float64], rng: np.random.Generator, num_steps: int = 16
) -> NDArray[np.float64]:
    """Follow a field of directions from each start [n, 2]; outlines of brush strokes, [n, corners, 2]."""
    waves, phases = rng.uniform(-4, 4, (2, 3)), rng.uniform(0, 2 * np.pi, 3)
    turn, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.9)
    length, thickness = rng.uniform(0.25, 0.45), rng.uniform(0.06, 0.09)
    place, spine, normals = starts, [], []
    for _ in range(num_steps):
        angle = turn + strength * np.sin(place @ waves + phases).sum(axis=1)
        heading = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        spine.append(place)
        normals.append(heading[:, ::-1] * (-1, 1))
        place = place + heading * length / num_steps
    taper = np.sqrt(np.sin(np.linspace(0, np.pi, num_steps)).clip(0))[:, None] * thickness / 2
    middle, side = np.stack(spine, axis=1), np.stack(normals, axis=1) * taper
    return np.concatenate([middle + side, (middle - side)[:, ::-1]], axis=1)
