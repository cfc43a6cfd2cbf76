"""The kinds of value a setting may have: checked when a command starts, before PyTorch is imported.

A signature says `learning_rate: Positive`, and `config.py` refuses 0, -1 and "1e-3x" with a message.
"""

import os
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, AllowInfNan, BeforeValidator

MAX_BASE = 16
MIN_BASE = 3
MIN_DOUBLINGS = 2
SMALLEST_SIDE = 12
LARGEST_SIDE = 2048


def split_resolution(height: int, width: int) -> tuple[tuple[int, int], int]:
    """Split a size into base * 2^k, with the largest k that leaves both sides at least 3.

    Args:
        height: of the picture, in pixels.
        width: likewise.

    Returns:
        ((base height, base width), k). A square power of two has base 4.

    Raises:
        ValueError: if k would be below 2 or the base above 16; names the nearest valid size.
    """
    found = _split(height, width)
    if found is None:
        near = (nearest_side(height), nearest_side(width))
        joint = near if _split(*near) else (max(near), max(near))
        size = f"{height}x{width}" if height != width else str(height)
        hint = f"[{joint[0]}, {joint[1]}]" if joint[0] != joint[1] else str(joint[0])
        raise ValueError(
            f"resolution {size} is not base * 2^k with k >= {MIN_DOUBLINGS} and a base of "
            f"{MIN_BASE} to {MAX_BASE}; the nearest that is: {hint}"
        )
    return found


def _split(height: int, width: int) -> tuple[tuple[int, int], int] | None:
    doublings, base = 0, (height, width)
    while all(side % 2 == 0 and side // 2 >= MIN_BASE for side in base):
        doublings, base = doublings + 1, (base[0] // 2, base[1] // 2)
    # 64 would split into 4 * 2^4; a square of side 3 * 2^k keeps its base of 3.
    if doublings < MIN_DOUBLINGS or min(base) < MIN_BASE or max(base) > MAX_BASE:
        return None
    return base, doublings


def nearest_side(side: int) -> int:
    """Find the valid square side nearest to a given one, in pixels; the smaller of two equally near."""
    valid = [b << k for b in range(MIN_BASE, MAX_BASE + 1) for k in range(MIN_DOUBLINGS, 12)]
    return min((s for s in valid if _split(s, s)), key=lambda s: (abs(s - side), s))


def size_of(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a resolution that is given as one number or as both."""
    return (resolution, resolution) if isinstance(resolution, int) else (resolution[0], resolution[1])


def _as_size(value: object) -> tuple[int, int]:
    """Turn `64` or `[48, 64]` into (height, width)."""
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(s, int) for s in value):
        return (value[0], value[1])
    raise ValueError("a resolution is one whole number, or [height, width]")


def _is_valid_size(value: tuple[int, int]) -> tuple[int, int]:
    for side in value:
        if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            raise ValueError(f"a side of {side} px is not between {SMALLEST_SIDE} and {LARGEST_SIDE}")
    split_resolution(*value)
    return value


Resolution = Annotated[int | tuple[int, int], AfterValidator(_is_valid_size), BeforeValidator(_as_size)]
"""(height, width) in pixels, written as one whole number or as [height, width]."""
Channels = Literal[1, 3, 4]
"""Gray, RGB or RGBA."""
Positive = Annotated[float, AllowInfNan(False), Gt(0)]
NotNegative = Annotated[float, AllowInfNan(False), Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
OpenFraction = Annotated[float, Gt(0), Lt(1)]
"""A fraction that is neither none nor all."""
Count = Annotated[int, Ge(1)]
"""A whole number from 1 up."""
CountOrZero = Annotated[int, Ge(0)]
GrowFrom = Literal["base"] | Count
"""The level that a growing network begins with: its pictures' shorter side in pixels, or the smallest."""
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]


def count_workers(num_workers: int | None) -> int:
    """How many processes a setting means: null is one a core that this process may use."""
    if num_workers is not None:
        return num_workers
    # A batch system may lend fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_seeds(text: str) -> list[int]:
    """Read a list of seeds such as `0-35` or `1,5,20-30`.

    Raises:
        ValueError: names the part that cannot be read.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) < int(first):
            raise ValueError(f"'{part}' is neither a number nor a range like 0-35")
        if int(last or first) >= 2**32:
            raise ValueError(f"{last or first} is above {2**32 - 1}")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def _are_seeds(text: str) -> str:
    parse_seeds(text)
    return text


Seeds = Annotated[str, AfterValidator(_are_seeds)]
"""One or more seeds in words: `0-35`, or `1,5,20-30`."""
PictureFormat = Literal["png", "jpg", "webp"]
