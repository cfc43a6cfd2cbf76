"""Contact sheets: many pictures on one page, each with a line or two of text under it."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GROUND = (238, 238, 238)
CELL = (250, 250, 250)
TEXT = (40, 40, 40)
FAINT = (110, 110, 110)
CHECKS = (255, 222)
"""The two grays of the board that shows through what is transparent."""
CHECK_SIDE = 8
GAP = 12
"""Pixels around each picture."""
TEXT_SIZE = 11
TITLE_SIZE = 18
LINE = 15
"""Pixels from one line of a caption to the next."""
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
MIN_WIDTH = 320
"""Pixels: a sheet of one picture still has room for its title."""


def contact_sheet(
    entries: Sequence[tuple[Image.Image, str]], columns: int = 8, side: int = 128, title: str = ""
) -> Image.Image:
    """Lay pictures out in rows, in their order.

    Args:
        entries: pictures of mode L, RGB or RGBA with their captions. A picture is shrunk to fit, never
            enlarged; a caption may have several lines, and each is shortened in its middle where it is too
            long.
        columns: how many pictures stand in a row.
        side: of the square that a picture fits in, in pixels.
        title: a line above all.

    Returns:
        An RGB picture; where there is no entry, one that says so. Equal entries give equal pixels with the
        same versions of Pillow and FreeType.

    Raises:
        ValueError: if `columns` or `side` is not positive.
    """
    if columns < 1 or side < 1:
        raise ValueError(f"columns={columns} and side={side} must be at least 1")
    num_lines = max((len(caption.splitlines()) for _, caption in entries), default=1)
    across = side + GAP
    down = side + num_lines * LINE + GAP
    rows = -(-len(entries) // columns)
    top = GAP + (TITLE_SIZE + GAP if title else 0)
    width = max(MIN_WIDTH, GAP + min(columns, max(1, len(entries))) * across)
    sheet = Image.new("RGB", (width, top + max(rows * down, LINE + GAP)), GROUND)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (GAP, GAP), title, TITLE_SIZE, TEXT, width - 2 * GAP)
    if not entries:
        _write(draw, (GAP, top), "no pictures", TEXT_SIZE, FAINT, width)
    for number, (picture, caption) in enumerate(entries):
        left, upper = GAP + number % columns * across, top + number // columns * down
        sheet.paste(_thumbnail(picture, side), (left, upper))
        for row, line in enumerate(caption.splitlines()):
            place = (left, upper + side + 3 + row * LINE)
            _write(draw, place, line, TEXT_SIZE, FAINT if row else TEXT, side)
    return sheet


def _thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """Centre a picture in a square cell, on a checkerboard where it is transparent."""
    scale = side / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BOX)
    cell = Image.new("RGB", (side, side), CELL)
    place = ((side - picture.width) // 2, (side - picture.height) // 2)
    if picture.mode == "RGBA":
        cell.paste(_checkerboard(picture.size), place)
        cell.paste(picture.convert("RGB"), place, picture.getchannel("A"))
    else:
        cell.paste(picture.convert("RGB"), place)
    return cell


def _checkerboard(size: tuple[int, int]) -> Image.Image:
    rows, columns = (np.arange(length) // CHECK_SIDE for length in reversed(size))
    odd = (rows[:, None] + columns) % 2
    return Image.fromarray(np.array(CHECKS, np.uint8)[odd])


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    font = _font(size)
    # File names may hold what cannot be drawn.
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    draw.text(place, _shortened(text, font, width), colour, font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Take letters out of the middle until a text fits into a width in pixels."""
    kept = len(text)
    short = text
    while kept and font.getlength(short) > width:
        kept -= 1
        short = text[: (kept + 1) // 2] + ELLIPSIS + text[len(text) - kept // 2 :]
    return short
