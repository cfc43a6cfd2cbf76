"""Contact sheets: every picture in its place, whole and with its caption."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from kaleidogan.data.preparing.sheets import CHECKS, GAP, GROUND, LINE, _shortened, contact_sheet


def cells(sheet, columns, num, side, num_lines=1, top=GAP):
    """Cut the pictures' squares out again."""
    down = side + num_lines * LINE + GAP
    return [
        np.asarray(sheet)[top + number // columns * down :, GAP + number % columns * (side + GAP) :][
            :side, :side
        ]
        for number in range(num)
    ]


def test_pictures_lie_in_rows():
    colours = [(number * 20, 0, 255 - number * 20) for number in range(7)]
    entries = [(Image.new("RGB", (40, 40), colour), f"{number}") for number, colour in enumerate(colours)]
    sheet = contact_sheet(entries, columns=3, side=32)
    assert sheet.mode == "RGB"
    assert sheet.height == GAP + 3 * (32 + LINE + GAP)
    for cell, colour in zip(cells(sheet, 3, 7, 32), colours, strict=True):
        assert (cell == colour).all()


def test_a_picture_keeps_its_aspect_and_is_not_enlarged():
    wide, small = Image.new("RGB", (200, 50), "red"), Image.new("L", (10, 20), 7)
    sheet = contact_sheet([(wide, ""), (small, "")], side=64)
    first, second = cells(sheet, 8, 2, 64, num_lines=0)
    rows = (first == (255, 0, 0)).all(axis=2)
    assert rows[24:40].all()
    assert rows.sum() == 64 * 16
    assert ((second == 7).all(axis=2)).sum() == 200
    assert (second[22:42, 27:37] == 7).all()


def test_transparency_shows_the_board():
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 32, 64))
    (cell,) = cells(contact_sheet([(clear, "x")], side=64), 1, 1, 64)
    assert (cell[:, :32] == (0, 0, 255)).all()
    assert set(np.unique(cell[:, 32:])) == set(CHECKS)
    assert (cell[0, 32:40] == CHECKS[0]).all()
    assert (cell[0, 40:48] == CHECKS[1]).all()


def test_captions_stand_under_the_pictures():
    entry = (Image.new("RGB", (64, 64), "white"), "above\nbelow")
    sheet = np.asarray(contact_sheet([entry], side=64))
    for row in range(2):
        line = sheet[GAP + 64 + 2 + row * LINE :][:LINE, GAP : GAP + 64]
        assert (line != GROUND).any()
    assert (sheet[-GAP // 2 :] == GROUND).all()
    plain = np.asarray(contact_sheet([(entry[0], "\n")], side=64))
    assert (plain[GAP + 64 :] == GROUND).all()


def test_a_title_moves_all_down():
    entry = (Image.new("RGB", (32, 32), "red"), "x")
    bare, titled = contact_sheet([entry], side=32), contact_sheet([entry], side=32, title="Blurred")
    shift = titled.height - bare.height
    assert shift > 0
    assert (np.asarray(titled)[shift + GAP :] == np.asarray(bare)[GAP:]).all()


def test_long_captions_are_shortened_in_the_middle():
    font = ImageFont.load_default(11)
    name = "a_long_folder/with_a_long_name_000123.png"
    short = _shortened(name, font, 128)
    assert font.getlength(short) <= 128
    before, after = short.split("\N{HORIZONTAL ELLIPSIS}")
    assert name.startswith(before)
    assert name.endswith(after)
    assert abs(len(before) - len(after)) <= 1
    assert _shortened("short.png", font, 128) == "short.png"


@pytest.mark.parametrize("name", ["", "\x00\x1b[31m", "\udcff.png", "猫.png", "a\tb", "x" * 300])
def test_any_name_can_be_a_caption(name):
    sheet = contact_sheet([(Image.new("RGB", (8, 8)), name)], side=16, title=name)
    assert sheet.width >= 16


def test_an_empty_sheet_says_so():
    sheet = contact_sheet([], title="Duplicates")
    assert sheet.size[0] > 100
    assert (np.asarray(sheet) != GROUND).any()
    assert (np.asarray(contact_sheet([])) != GROUND).any()


def test_equal_entries_give_equal_bytes():
    def draw():
        picture = Image.effect_mandelbrot((90, 60), (-2, -1.5, 1, 1.5), 50)
        buffer = io.BytesIO()
        contact_sheet([(picture, "one"), (picture.convert("RGBA"), "two")], title="x").save(buffer, "PNG")
        return buffer.getvalue()

    assert draw() == draw()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes(size):
    contact_sheet([(Image.new("RGBA", size), "x")], side=48)


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"side": 0}])
def test_nothing_to_lay_out_in_is_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        contact_sheet([], **wrong)
