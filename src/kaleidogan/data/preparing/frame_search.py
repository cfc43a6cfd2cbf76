"""What makes a frame: straight edges, and outside them bars that stay the same and resemble each other.

A picture is looked at from its four sides, line by line; a depth is a number of lines. Which of the
rectangles that straight edges form is a frame's is told by a linear score of a dozen features, whose weights
were fitted to drawn frames (`benchmarks/frames.py --fit`).
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Depths = tuple[int, int, int, int]
"""Lines from the left, the top, the right and the bottom."""
_Strip = tuple[int, float, Floats]
"""What is plain along a side: its depth, the share of its edge that is seen, its colour."""
NOTHING = (0, 0, 0, 0)

REACH = 0.36
"""How far from each side an edge is looked for, in sides."""
ANGLES = np.arange(-5, 5.1, 0.5)
FINE_ANGLES = np.arange(-0.4, 0.41, 0.1)
LEAST_ANGLE = 0.15
"""Degrees under which a picture counts as upright: turning it would cost more sharpness than it is worth."""
BLOCKS = 16
"""Parts of a line whose means are compared: long enough to hold an ornament's period."""
EDGE = 10.0
"""Least distance of the colours on both sides of an edge, in 8-bit RGB."""
CANDIDATES = 12
"""Edges that are tried on each side."""
FLAT = 4.0
"""How much a scan's margin may change, in 8-bit RGB."""
NEUTRAL = 24.0
"""How far apart the channels of a white, gray or black may lie."""
LEAST_COVERAGE, MOST_SOFTNESS, MOST_SPREAD = 0.55, 0.55, 0.3
"""What a frame's four edges and bars must come up to on average; the worst that was seen is near it."""
CLOSED = 0.95
"""The share of a plain margin's inner edge that must be seen."""
CLOSED_BESIDE_OTHERS = 0.8
"""That share where two margins of its colour are there already."""
THRESHOLD = -2.0
"""Score from which on a rectangle is a frame's."""
FEATURES = (
    "softness",
    "coverage",
    "step",
    "spread",
    "last spread",
    "spread inside",
    "depth",
    "largest last spread",
    "colours of opposite bars",
    "colours of adjacent bars",
    "widths of opposite bars",
    "widths of adjacent bars",
)
WEIGHTS = np.array(
    (1.61, 1.90, -1.87, 0.07, 4.75, 9.35, -14.92, -0.16, -1.99, -0.61, -1.96, -12.08), np.float32
)
"""How much each of `FEATURES` but the first counts, and the constant."""


@dataclass(frozen=True)
class _Side:
    """What is seen from one side of a picture, by the depth in pixels.

    Attributes:
        sums: [n + 1, m, 3], the colours above this depth, added up.
        edges: [n, m], whether there is an edge at this depth or next to it.
        coverage: [n], the share of the length that has an edge at this depth.
        step: [n], the colour's mean change there, clipped.
        spread: [n], how much the line below changes along its length, 0 to 1.
        colors: [n, 3], the median colour of the line below.
    """

    sums: Floats
    edges: NDArray[np.bool_]
    coverage: Floats
    step: Floats
    spread: Floats
    colors: Floats


def find_depths(picture: Floats, *, framed: bool, margins: bool) -> tuple[Depths, bool]:
    """Find how wide a frame's bars or a scan's margins are; all 0 where there is neither.

    Args:
        picture: [h, w, 3], 0 to 255, upright.
        framed: whether a frame has been cut off already; a plain bar in it is a mat, alone it may be painted.
        margins: whether to look for plain margins too, which need not be on every side.

    Returns:
        The depths, and whether they are a frame's four bars.
    """
    sides = [_side(view) for view in _views(picture)]
    bars = _bars(sides, max(picture.shape), framed)
    if not margins or framed:
        return bars, any(bars)
    strips = [_plain_strip(side) for side in sides]
    plain = _margins(strips, max(picture.shape))
    if not any(bars) or _overshot(bars, strips, plain):
        return plain, False
    return bars, True


def turned(small: Floats, angle: float) -> Floats:
    """Turn a picture clockwise about its centre; what comes in at the corners continues the border."""
    if angle == 0:
        return small
    height, width = small.shape[:2]
    border = math.ceil(max(height, width) * math.sin(math.radians(abs(angle))) / 2) + 2
    padded = np.pad(small, ((border, border), (border, border), (0, 0)), mode="edge").astype(np.uint8)
    turned = Image.fromarray(padded).rotate(-angle, Image.Resampling.BILINEAR)
    return np.asarray(turned)[border : border + height, border : border + width].astype(np.float32)


def _length(colors: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.sqrt(np.einsum("...c,...c->...", colors, colors))


def _views(picture: Floats) -> list[Floats]:
    """Look at a picture from the left, top, right and bottom: [depth, length, 3], as far as frames reach."""
    sideways = picture.swapaxes(0, 1)
    views = (sideways, picture, sideways[::-1], picture[::-1])
    return [np.ascontiguousarray(view[: int(REACH * len(view))]) for view in views]


def _edges(view: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Measure the colour's change across each depth, [n, m], and tell where it is an edge, [n, m].

    The first array are sums over all lines above a depth, [n + 1, m, 3].

    Means are taken over 7 pixels along the line, which levels brush strokes, and 2 across it. An edge is
    where the change is at least `EDGE` and none within 3 pixels is larger.
    """
    number = len(view)
    padded = np.pad(view, ((0, 0), (4, 3), (0, 0)), mode="edge").cumsum(axis=1, dtype=np.float32)
    sums: Floats = np.zeros((number + 1, view.shape[1], 3), np.float32)
    np.cumsum((padded[:, 7:] - padded[:, :-7]) / 7, axis=0, out=sums[1:])
    depth = np.arange(1, number)
    before, after = np.maximum(depth - 2, 0), np.minimum(depth + 2, number)
    outer = np.divide(sums[depth] - sums[before], (depth - before)[:, None, None], dtype=np.float32)
    inner = np.divide(sums[after] - sums[depth], (after - depth)[:, None, None], dtype=np.float32)
    change = np.zeros(view.shape[:2], np.float32)
    change[1:] = _length(inner - outer)
    largest = np.pad(change, ((3, 3), (0, 0)))
    largest = np.max([largest[shift : shift + number] for shift in range(7)], axis=0)
    return sums, change, (change >= largest) & (change > EDGE)


def find_tilt(small: Floats) -> float:
    """Find the angle, in degrees counter-clockwise, of the longest straight edges along the four sides."""
    points = []
    for edges, sign in zip((_edges(view)[2] for view in _views(small)), (1, -1, -1, 1), strict=True):
        margin = int(0.15 * edges.shape[1])
        depth, along = np.nonzero(edges[:, margin : edges.shape[1] - margin])
        middle = edges.shape[1] / 2 - margin - 0.5
        points.append((depth, sign * (along - middle), len(edges), edges.shape[1] - 2 * margin))

    def straightness(angle: float) -> float:
        total = 0.0
        for depth, along, number, length in points:
            shifted = np.rint(depth - math.tan(math.radians(angle)) * along).astype(np.intp)
            count = np.bincount(shifted[(shifted >= 2) & (shifted < number)], minlength=number + 1)
            shares = (count[1:-1] + 0.5 * (count[2:] + count[:-2])) / length
            # The cube lets a few long edges outweigh many short ones.
            total += float((shares**3).sum() ** (1 / 3))
        # A little in favour of upright, where other angles are no better.
        return total - 0.02 * abs(angle)

    coarse = max(ANGLES, key=straightness)
    fine = max([0.0, *(coarse + FINE_ANGLES)], key=straightness)
    return 0.0 if abs(fine) < LEAST_ANGLE else round(float(fine), 2)


def _side(view: Floats) -> _Side:
    sums, change, edges = _edges(view)
    number, length = edges.shape
    near = edges.copy()
    near[1:] |= edges[:-1]
    near[:-1] |= edges[1:]
    # Every rectangle's side reaches over the middle.
    middle = slice(int(0.2 * length), int(0.8 * length))
    ends = np.linspace(0, length, BLOCKS + 1).astype(int)
    blocks = np.add.reduceat(view, ends[:-1], axis=1) / np.diff(ends)[:, None].astype(np.float32)
    padded = np.pad(blocks, ((1, 1), (0, 0), (0, 0)), mode="edge")
    blocks = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    # Bars are mitred: beyond the diagonals lie the adjacent ones.
    depth = np.minimum(np.arange(number), 0.38 * length)[:, None]
    centres = (ends[:-1] + ends[1:]) / 2
    outside = (centres < 0.95 * depth) | (centres > length - 1 - 0.95 * depth)
    seen = BLOCKS - outside.sum(axis=1)
    # Sorted with the unseen blocks last, the median is in the middle of the seen ones.
    ordered = np.sort(np.where(outside[:, :, None], np.float32(np.inf), blocks), axis=1)
    colors = (ordered[np.arange(number), (seen - 1) // 2] + ordered[np.arange(number), seen // 2]) / 2
    away = np.minimum(_length(blocks - colors[:, None]), 60) / 60
    return _Side(
        sums=sums,
        edges=near,
        # Next to an edge counts almost as much, for frames are not quite straight.
        coverage=(10 * near[:, middle].mean(axis=1) + edges[:, middle].mean(axis=1)).astype(np.float32) / 11,
        step=np.minimum(change[:, middle], 80).mean(axis=1) / 80,
        spread=((away * ~outside).sum(axis=1) / seen).astype(np.float32),
        colors=colors,
    )


def _margins(strips: list[_Strip], length: int) -> Depths:
    """Find how wide a scan's plain margins are, 0 where there is none.

    A margin is white, gray or black, the same all over, and ends at a straight edge. Where there are two,
    more of their colour may have gaps in their edge. One alone is believed only if narrow: it may be a sky.
    """
    strips = [
        (depth if float(np.ptp(color)) < NEUTRAL else 0, share, color) for depth, share, color in strips
    ]
    sure = [(depth, color) for depth, share, color in strips if depth and share >= CLOSED]
    if not sure or (len(sure) == 1 and sure[0][0] > 0.1 * length):
        return NOTHING
    least = CLOSED if len(sure) == 1 else CLOSED_BESIDE_OTHERS
    left, top, right, bottom = (
        depth if share >= least and math.dist(color, sure[0][1]) < 10 * FLAT else 0
        for depth, share, color in strips
    )
    return left, top, right, bottom


def _overshot(bars: Depths, strips: list[_Strip], margins: Depths) -> bool:
    """Tell whether bars are margins on two or three sides, and something within the painting on the rest."""
    agree = [abs(bar - margin) <= 2 for bar, margin in zip(bars, margins, strict=True) if margin]
    beyond = [
        abs(bar - strip[0]) > 2
        for bar, strip, margin in zip(bars, strips, margins, strict=True)
        if not margin
    ]
    return len(agree) in (2, 3) and all(agree) and any(beyond)


def _plain_strip(side: _Side) -> _Strip:
    """Measure what is plain along a side."""
    color = side.colors[0]
    drift = _length(side.colors - color)
    same = (side.spread * 60 < 3 * FLAT) & (drift < 5 * FLAT)
    number = 0 if same.all() else int(same.argmin())
    depth = max(0, number - 2) + int(side.coverage[max(0, number - 2) : number + 3].argmax())
    if not 2 <= depth < len(side.coverage) - 6 or _softness(side, depth) > MOST_SOFTNESS:
        return 0, 0.0, color
    margin = int(0.2 * side.edges.shape[1])
    return depth, float(side.edges[depth, margin:-margin].mean()), color


def _candidates(sides: list[_Side]) -> list[list[int]]:
    """Choose depths to try on each side: the longest edges, and those of the other sides."""
    own = []
    for side in sides:
        coverage, last = side.coverage, len(side.coverage) - 7
        peaks = [
            depth
            for depth in range(2, last)
            if coverage[depth] >= 0.3 and coverage[depth] >= coverage[max(0, depth - 2) : depth + 3].max()
        ]
        own.append(sorted(peaks, key=lambda depth: -coverage[depth])[:10])
    chosen = []
    for number, side in enumerate(sides):
        depths = dict.fromkeys(own[number])
        for other in range(4):
            for depth in own[other][:6] if other != number else []:
                if 2 < depth < len(side.coverage) - 10:
                    snapped = depth - 2 + int(side.coverage[depth - 2 : depth + 3].argmax())
                    depths[max(2, snapped)] = None
        chosen.append(sorted(depths, key=lambda depth: -side.coverage[depth])[:CANDIDATES])
    return chosen


def _side_features(side: _Side, depths: list[int], length: int) -> tuple[Floats, Floats]:
    """Describe a bar for each depth at which it may end: features [n, 7] and its last colours [n, 3]."""
    features, colors = [], []
    reach = max(5, length // 50)
    for depth in depths:
        last = slice(max(0, depth - 5), depth - 1)
        colors.append(np.median(side.colors[last], axis=0))
        features.append(
            (
                _softness(side, depth),
                side.coverage[depth - 1 : depth + 2].max(),
                side.step[depth],
                side.spread[: max(1, depth - 1)].mean(),
                side.spread[last].mean(),
                side.spread[depth + 2 : depth + 2 + reach].mean(),
                depth / length,
            )
        )
    return np.array(features, np.float32), np.array(colors, np.float32)


def _softness(side: _Side, depth: int) -> float:
    """Tell how much of the change of colour about a depth is not at the depth itself, 0 to 1."""
    narrow = max(
        _distance(side, (max(0, edge - 2), edge), (edge, edge + 2)) for edge in (depth - 1, depth, depth + 1)
    )
    outer, inner = max(1, depth - 2), min(len(side.coverage), depth + 6)
    wide = _distance(side, (max(0, outer - 4), outer), (depth + 2, inner))
    return 1 - min(1.0, narrow / (wide + 1))


def _distance(side: _Side, first: tuple[int, int], second: tuple[int, int]) -> float:
    """Compare the colours between two depths with those between two others, on the middle of the lines."""
    length = side.sums.shape[1]
    sums = side.sums[:, int(0.2 * length) : int(0.8 * length) : 2]
    one, other = ((sums[end] - sums[start]) / (end - start) for start, end in (first, second))
    return float(_length(one - other).mean())


def _features(sides: list[_Side], depths: list[list[int]], length: int) -> Floats:
    """Describe every rectangle of the candidates: [n0, n1, n2, n3, len(FEATURES)], see `FEATURES`."""
    shape = tuple(len(one) for one in depths)
    features = np.zeros((*shape, len(FEATURES)), np.float32)
    described = [_side_features(side, one, length) for side, one in zip(sides, depths, strict=True)]
    for number, (one, _) in enumerate(described):
        place = [1, 1, 1, 1]
        place[number] = len(one)
        features[..., :7] += one.reshape(*place, 7)
        np.maximum(features[..., 7], one[:, 4].reshape(place), out=features[..., 7])
    for first, second in combinations(range(4), 2):
        place = [1, 1, 1, 1]
        place[first], place[second] = shape[first], shape[second]
        adjacent = (second - first) % 2
        colors = described[first][1][:, None] - described[second][1]
        colors = np.minimum(_length(colors) / 80, 1)
        features[..., 8 + adjacent] += colors.reshape(place)
        widths = np.abs(np.array(depths[first])[:, None] - np.array(depths[second]))
        features[..., 10 + adjacent] += np.minimum(widths / (0.05 * length), 1).reshape(place)
    return features


def _bars(sides: list[_Side], length: int, framed: bool) -> Depths:
    """Find how wide a frame's four bars are."""
    depths = _candidates(sides)
    if not all(depths):
        return NOTHING
    features = _features(sides, depths, length)
    scores = np.where(_possible(features), features[..., 1:] @ WEIGHTS[:-1] + WEIGHTS[-1], -np.inf)
    best = np.unravel_index(scores.argmax(), scores.shape)
    left, top, right, bottom = (depths[number][int(index)] for number, index in enumerate(best))
    found = (left, top, right, bottom)
    return NOTHING if scores[best] < THRESHOLD or (not framed and _open_ground(sides, found)) else found


def _possible(features: Floats) -> NDArray[np.bool_]:
    """Tell from `_features` which rectangles may be a frame's: seen, sharp, the same along its bars."""
    softness, coverage, _, spread = (features[..., number] / 4 for number in range(4))
    worst = features[..., FEATURES.index("largest last spread")]
    sharp = (coverage > LEAST_COVERAGE) & (softness < MOST_SOFTNESS)
    return sharp & (spread < MOST_SPREAD) & (worst < 1.5 * MOST_SPREAD)


def _open_ground(sides: list[_Side], depths: Depths) -> bool:
    """Tell whether the bars are one plain ground that goes on between the shapes within: no frame does."""
    lines = np.concatenate(
        [side.colors[: max(1, depth - 2)] for side, depth in zip(sides, depths, strict=True)]
    )
    away = _length(lines - np.median(lines, axis=0))
    spreads = [side.spread[: max(1, depth - 2)].max() for side, depth in zip(sides, depths, strict=True)]
    if max(spreads) * 60 > 2 * FLAT or away.max() > 3 * FLAT:
        return False
    for number, (side, depth) in enumerate(zip(sides, depths, strict=True)):
        # Left and right begin at the top, top and bottom at the left.
        before, after = ((depths[1], depths[3]), (depths[0], depths[2]))[number % 2]
        if side.edges[depth, before + 2 : side.edges.shape[1] - after - 2].mean() < CLOSED:
            return True
    return False
