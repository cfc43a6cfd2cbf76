"""Pictures by hand-made algorithms."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kaleidogan.data.procedural import STYLES, Gallery
from kaleidogan.data.procedural.canvas import Canvas
from kaleidogan.data.procedural.palettes import (
    BLACK,
    MIN_CONTRAST,
    SCHEMES,
    WHEEL,
    WHITE,
    Paint,
    choose_palette,
    contrast,
    list_names,
    mix,
    wheel_rgb,
)
from kaleidogan.data.procedural.shades import choose_constant, escape_times, smoothstep
from kaleidogan.data.procedural.shapes import scatter, split_cells
from kaleidogan.data.reader import Reader, decode

SIZES = [(16, 16), (64, 64), (128, 96), (48, 112), (256, 256)]
PURE, TINT, SHADE = (0.45, 1.0, 0.4, 1.0), (0.08, 0.55, 0.7, 1.0), (0.3, 1.0, 0.15, 0.6)
HUES = {
    "red": (-20, 15),
    "orange": (10, 42),
    "yellow": (37, 60),
    "lime": (53, 105),
    "green": (80, 178),
    "teal": (160, 202),
    "blue": (190, 248),
    "purple": (238, 305),
    "magenta": (300, 348),
}
"""What each word means on the screen's own colour wheel, in degrees of HSV: not how the code names paints."""
MEANINGS = {name: (*hues, *PURE) for name, hues in HUES.items()}
MEANINGS |= {f"light {name}": (*hues, *TINT) for name, hues in HUES.items()}
MEANINGS |= {f"dark {name}": (*hues, *SHADE) for name, hues in HUES.items()}
MEANINGS |= {
    "pink": (-60, 20, *TINT),
    "peach": (12, 42, *TINT),
    "lavender": (235, 315, *TINT),
    "maroon": (-25, 15, *SHADE),
    "brown": (5, 42, *SHADE),
    "olive": (35, 105, *SHADE),
    "navy": (190, 248, *SHADE),
    "plum": (285, 350, *SHADE),
    "white": (-180, 180, 0, 0.06, 0.9, 1),
    "cream": (20, 60, 0.1, 0.25, 0.9, 1),
    "gray": (-180, 360, 0, 0.1, 0.5, 0.9),
    "black": (-180, 360, 0, 1, 0, 0.2),
}
WORDS = re.compile(r"\b(" + "|".join(sorted(MEANINGS, key=len, reverse=True)) + r")\b")


def share_of(name: str, pixels: NDArray[np.uint8]) -> float:
    """Measure which share of a picture has the colour that a word means."""
    low_hue, high_hue, *limits = MEANINGS[name]
    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(pixels).convert("HSV")) / 255, 2, 0)
    turned = (hue * 360 - low_hue) % 360 + low_hue
    fits = (turned <= high_hue) & (saturation >= limits[0]) & (saturation <= limits[1])
    return float((fits & (value >= limits[2]) & (value <= limits[3])).mean())


# Colour


@pytest.mark.parametrize(
    ("hue", "one", "opposite"), [(0, "red", "green"), (120, "yellow", "purple"), (240, "blue", "orange")]
)
def test_primaries_are_opposite_the_mixture_of_the_other_two(hue: int, one: str, opposite: str) -> None:
    assert mix(hue).name == one
    assert mix(hue + 180).name == opposite


def test_the_wheel_is_linear_between_anchors_and_closed() -> None:
    for number, anchor in enumerate(WHEEL):
        np.testing.assert_allclose(wheel_rgb(30.0 * number), anchor)
        np.testing.assert_allclose(wheel_rgb(30.0 * number + 15), (anchor + WHEEL[(number + 1) % 12]) / 2)
    np.testing.assert_allclose(wheel_rgb(-90.0), wheel_rgb(270.0))
    np.testing.assert_allclose(wheel_rgb(359.999999), wheel_rgb(0.0), atol=1e-3)


def test_mixing_runs_from_black_over_the_hue_to_white() -> None:
    assert mix(77.0, -1.0).rgb == BLACK
    assert mix(77.0, 1.0).rgb == WHITE
    assert mix(60.0).rgb == tuple(WHEEL[2])


def test_every_paint_has_the_colour_that_its_name_means() -> None:
    for hue, tone in itertools.product(range(0, 360, 3), (-0.7, -0.5, -0.2, 0.0, 0.1, 0.55, 0.75)):
        paint = mix(hue, tone)
        assert share_of(paint.name, np.array(paint.rgb, np.uint8)[None, None]) == 1, (hue, tone, paint)


@pytest.mark.parametrize("key", range(0, 360, 15))
def test_the_complementary_scheme_has_opposite_hues(key: int) -> None:
    first, second, _ = SCHEMES["complementary"](key)
    assert first == mix(key)
    assert second == mix((key + 180) % 360)


def test_contrast_is_one_between_white_and_black_and_none_to_itself() -> None:
    white, black = Paint("white", (255, 255, 255)), Paint("black", (0, 0, 0))
    assert contrast(white, black) == pytest.approx(1)
    assert contrast(white, white) == 0
    assert contrast(white, Paint("yellow", (255, 255, 0))) == pytest.approx(0.2**0.5)


def test_palettes_stand_out_from_their_ground_in_colour_and_word() -> None:
    palettes = [choose_palette(np.random.default_rng(seed)) for seed in range(400)]
    assert {palette.scheme for palette in palettes} == set(SCHEMES)
    for palette in palettes:
        assert palette.ground.name not in {paint.name for paint in palette.paints}
        assert min(contrast(palette.ground, paint) for paint in palette.paints) > MIN_CONTRAST * 0.75


def test_names_are_joined_once_each() -> None:
    red, blue, sky = Paint("red", (255, 0, 0)), Paint("blue", (0, 0, 255)), Paint("blue", (0, 90, 255))
    assert list_names([red]) == "red"
    assert list_names([red, blue, sky]) == "red and blue"
    assert list_names([red, mix(120), blue]) == "red, yellow and blue"


# Drawing


def test_an_edge_across_a_pixel_covers_it_in_part() -> None:
    canvas = Canvas((8, 8), Paint("black", (0, 0, 0)))
    canvas.rectangle(0, 0, 2.25 / 8, 1, Paint("white", (255, 255, 255)))
    row = canvas.pixels()[4, :, 0]
    assert row[:2].tolist() == [255, 255]
    assert row[2] == pytest.approx(255 / 4, abs=2)
    assert not row[3:].any()


def test_a_disc_and_a_polygon_have_their_areas() -> None:
    white = Paint("white", (255, 255, 255))
    for resolution in ((64, 64), (40, 90)):
        canvas = Canvas(resolution, Paint("black", (0, 0, 0)))
        canvas.disc(0.5, 0.5, 0.3, white)
        area = canvas.pixels()[:, :, 0].sum() / 255 / min(resolution) ** 2
        assert area == pytest.approx(np.pi * 0.3**2, rel=0.005)
        canvas = Canvas(resolution, Paint("black", (0, 0, 0)))
        canvas.polygon(np.array([(0.1, 0.1), (0.9, 0.1), (0.1, 0.7)]), white)
        area = canvas.pixels()[:, :, 0].sum() / 255 / min(resolution) ** 2
        assert area == pytest.approx(0.8 * 0.6 / 2, rel=0.005)


def test_cells_are_square_and_centred() -> None:
    ground = Paint("black", BLACK)
    assert split_cells(Canvas((64, 64), ground), 2) == [
        (0.25, 0.25),
        (0.75, 0.25),
        (0.25, 0.75),
        (0.75, 0.75),
    ]
    wide = split_cells(Canvas((64, 96), ground), 3)
    assert len(wide) == 3 * 4
    assert np.mean(wide, axis=0).tolist() == pytest.approx([0.75, 0.5])


def test_scattered_circles_keep_apart() -> None:
    circles = scatter(Canvas((64, 96), Paint("black", BLACK)), np.random.default_rng(0), 0.3, 0.08, 0.02)
    assert len(circles) > 3
    for (x, y, radius), (a, b, other) in itertools.combinations(circles, 2):
        assert np.hypot(x - a, y - b) > radius + other + 0.02


def test_escape_times_of_squaring_alone_have_a_closed_form() -> None:
    # With c = 0, |z| after s + 1 squarings is |z0|^(2^(s+1)): s - log2(log2 |z|) does not depend on s.
    radii = np.array([0.2, 0.99, 1.2, 1.5, 2.0, 3.0])
    times = escape_times(radii * np.exp(0.7j), 0j)
    assert np.isinf(times[:2]).all()
    np.testing.assert_allclose(times[2:], -1 - np.log2(np.log2(radii[2:])), atol=1e-4)


def test_constants_lie_in_the_mandelbrot_set() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        c = choose_constant(rng)
        z = 0j
        for _ in range(300):
            z = z * z + c
        assert abs(z) < 2


def test_smoothstep_rises_from_nought_to_one() -> None:
    np.testing.assert_allclose(smoothstep(np.array([-1, 0, 0.25, 0.5, 1, 2])), [0, 0, 0.15625, 0.5, 1, 1])


# Pictures


@pytest.mark.parametrize("resolution", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_style_draws_at_any_size(resolution: tuple[int, int], channels: int) -> None:
    for number in range(len(STYLES)):
        picture = Gallery(seed=4).draw(number, resolution, channels)
        assert picture.pixels.shape == (*resolution, channels)
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.flags.writeable
        assert picture.style == list(STYLES)[number]
        assert picture.pixels[:, :, 0].std() > 5


def test_gray_and_rgba_are_conversions_of_rgb() -> None:
    gallery = Gallery()
    rgb, gray, rgba = (gallery.draw(7, (32, 48), channels).pixels for channels in (3, 1, 4))
    assert (gray[:, :, 0] == np.asarray(Image.fromarray(rgb).convert("L"))).all()
    assert (rgba[:, :, :3] == rgb).all()
    assert (rgba[:, :, 3] == 255).all()


def test_a_picture_depends_on_seed_and_number_alone() -> None:
    few, many = Gallery(num_images=3, seed=5), Gallery(num_images=9000, seed=5)
    for number in (8, 2, 5):
        one, other = few.draw(number, (32, 32)), many.draw(number, (32, 32))
        assert (one.pixels == other.pixels).all()
        assert one.caption == other.caption
    assert (few.draw(0, (32, 32)).pixels != few.draw(9, (32, 32)).pixels).any()
    assert (few.draw(0, (32, 32)).pixels != Gallery(seed=6).draw(0, (32, 32)).pixels).any()


@pytest.mark.parametrize("number", range(36))
def test_the_composition_is_one_at_all_sizes(number: int) -> None:
    gallery = Gallery(seed=2)
    small, large = gallery.draw(number, (64, 64)), gallery.draw(number, (128, 128))
    halved = large.pixels.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    gap = np.abs(halved - small.pixels).mean()
    other = np.abs(gallery.draw(number + 36, (64, 64)).pixels - halved).mean()
    assert gap < 6 < 0.2 * other
    assert small.caption == large.caption == gallery.draw(number, (16, 16)).caption


@pytest.mark.parametrize("style", STYLES)
def test_edges_have_colours_between_those_of_their_sides(style: str) -> None:
    gallery = Gallery(styles=(style,))
    for number in range(6):
        pixels = gallery.draw(number, (64, 64)).pixels
        # Three paints, the ground and the ink of a grid's lines are all that there is without edges.
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 5


@pytest.mark.parametrize("style", STYLES)
def test_captions_are_true(style: str) -> None:
    gallery = Gallery(seed=1, styles=(style,))
    for number in range(12):
        picture = gallery.draw(number, (96, 96))
        assert re.match(rf"an abstract painting with .*\b{style}\b", picture.caption)
        names = WORDS.findall(picture.caption)
        assert len(names) >= 2
        shares = {name: share_of(name, picture.pixels) for name in names}
        assert min(shares.values()) > 0.008, (number, picture.caption, shares)


# Sets


def test_styles_may_be_chosen() -> None:
    gallery = Gallery(num_images=4, styles=("flow", "grid"))
    assert gallery.label_names == ("flow", "grid")
    assert [sample.label for sample in gallery.samples((16, 16), 3, num_workers=0)] == [0, 1, 0, 1]
    assert Gallery().label_names == tuple(STYLES)


@pytest.mark.parametrize(
    ("styles", "message"),
    [
        (("circels",), "unknown style 'circels'; the nearest is 'circles'"),
        (("circles", "zz"), "unknown style 'zz'; the nearest is"),
        ((), "at least one"),
        (("grid", "grid"), "different"),
    ],
)
def test_unfit_styles_are_refused(styles: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gallery(styles=styles)


def test_a_pool_makes_the_same_samples_in_order() -> None:
    gallery = Gallery(num_images=150, seed=3)
    alone = list(gallery.samples((16, 24), 3, num_workers=1))
    assert list(gallery.samples((16, 24), 3, num_workers=2)) == alone
    assert [sample.label for sample in alone] == [number % len(STYLES) for number in range(150)]
    picture = gallery.draw(100, (16, 24))
    assert alone[100].caption == picture.caption
    assert alone[100].source_size == (16, 24)
    assert (decode(alone[100].picture, 3, picture.pixels.shape[:2]) == picture.pixels).all()


def test_samples_are_drawn_when_asked_for() -> None:
    samples = Gallery(num_images=10**7).samples((16, 16), 3, num_workers=1)
    assert len(list(itertools.islice(samples, 3))) == 3


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_written_set_reads_back(tmp_path: Path, channels: int, capfd: pytest.CaptureFixture[str]) -> None:
    gallery = Gallery(num_images=20, styles=("fields", "tiles"))
    index = gallery.write(tmp_path / "art", (24, 16), channels)
    assert (index.resolution, index.channels, index.about.resize_filter) == ((24, 16), channels, None)
    assert index.label_names == ("fields", "tiles")
    assert index.rows["label"].tolist() == [0, 1] * 10
    reader = Reader(index)
    for number in range(20):
        assert (reader.read(number) == gallery.draw(number, (24, 16), channels).pixels).all()
    reader.close()
    captured = capfd.readouterr()
    assert "drawing 20 pictures" in captured.err
    assert not captured.out


def test_drawing_needs_neither_opengl_nor_torch() -> None:
    code = """
import sys
from pathlib import Path
from kaleidogan.data.procedural import Gallery

gallery = Gallery(styles=["circles", "fractal"])
for number in range(2):
    gallery.draw(number, (32, 32))
assert not {"torch", "webdataset"} & set(sys.modules)
maps = Path("/proc/self/maps")
print([name for name in ("libGL", "libEGL") if maps.exists() and name in maps.read_text()])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stderr
