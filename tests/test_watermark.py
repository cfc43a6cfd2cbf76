"""Overlays that many pictures share: found, told from chance, and scored on pictures not seen before."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from kaleidogan.data.preparing import watermark
from kaleidogan.data.preparing.watermark import SIDE, SUSPECT, VIEWS, estimate, view_gradients


def clouds(number, size=None):
    """Make a picture with structure of all sizes, as a photograph has; no two are of one size."""
    rng = np.random.default_rng(number)
    width, height = size or (int(rng.integers(280, 400)), int(rng.integers(270, 360)))
    pixels = np.zeros((height, width, 3))
    for side in (3, 6, 12, 24, 48, 96, 192):
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        pixels += (
            (np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) - 128.0) * 0.8 * side**-0.4
        )
    return Image.fromarray((pixels + 110).clip(0, 255).astype(np.uint8))


def stamp(picture, view, alpha=0.4):
    """Blend a white text in, so many pixels from an anchor or stretched with the picture."""
    mask = Image.new("L", picture.size)
    font = ImageFont.load_default(28)
    if view == "stretched":
        large = Image.new("L", (400, 300))
        ImageDraw.Draw(large).text((200, 150), "SAMPLE", 255, ImageFont.load_default(80), "mm")
        mask = large.resize(picture.size, Image.Resampling.BICUBIC)
    else:
        across, down = watermark.ANCHORS[view]
        place = (
            (picture.width - 1) * across + 12 * (1 - 2 * across),
            (picture.height - 1) * down + 12 * (1 - 2 * down),
        )
        anchor = {0.0: "l", 0.5: "m", 1.0: "r"}[across] + {0.0: "t", 0.5: "m", 1.0: "b"}[down]
        ImageDraw.Draw(mask).text(place, "© Pictures", 255, font, anchor)
    marked = picture.copy()
    marked.paste(Image.new("RGB", picture.size, "white"), mask=mask.point(lambda value: round(value * alpha)))
    return marked


PICTURES = [clouds(number) for number in range(48)]
OTHERS = [clouds(number) for number in range(1000, 1010)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("num_marked", [pytest.param(48, marks=pytest.mark.slow), 12])
def test_an_overlay_is_found_where_it_lies(view, num_marked):
    pictures = [stamp(picture, view) for picture in PICTURES[:num_marked]] + PICTURES[num_marked:]
    overlay = estimate(iter(pictures))
    assert overlay is not None
    assert overlay.view == view
    assert overlay.share == pytest.approx(num_marked / 48, abs=0.03)
    for picture in OTHERS:
        assert overlay.score(stamp(picture, view)) >= SUSPECT
        assert overlay.score(picture) < SUSPECT / 2


def test_a_faint_overlay_on_few_pictures():
    pictures = [stamp(picture, "bottom right", alpha=0.2) for picture in PICTURES[:12]] + PICTURES[12:]
    overlay = estimate(pictures)
    assert overlay is not None
    assert (overlay.view, overlay.share) == ("bottom right", 0.25)
    marked = [overlay.score(stamp(picture, "bottom right", alpha=0.2)) for picture in OTHERS]
    assert np.mean(np.array(marked) >= SUSPECT) >= 0.9


def test_where_there_is_none():
    assert estimate(PICTURES) is None
    assert estimate([]) is None
    marked = [stamp(picture, "centre") for picture in PICTURES[: watermark.MIN_PICTURES]]
    assert estimate(marked) is not None
    assert estimate(marked[1:]) is None
    assert estimate([stamp(picture, "centre") for picture in PICTURES[:5]] + PICTURES[5:]) is None


def test_drawings_on_a_flat_ground_share_outlines_that_are_no_overlay():
    rng = np.random.default_rng(0)
    drawings = []
    for _ in range(40):
        drawing = Image.new("RGBA", (128, 128))
        ImageDraw.Draw(drawing).ellipse((10, 10, 118, 118), tuple(rng.integers(0, 256, 3).tolist()))
        drawings.append(drawing)
    assert estimate(drawings) is None


def test_the_template_is_the_overlays_own_gradient():
    ground = Image.new("RGB", (300, 280), (100, 100, 100))
    overlay = estimate([stamp(picture, "top left") for picture in PICTURES])
    own = view_gradients(stamp(ground, "top left"), "top left")
    assert overlay.score(stamp(ground, "top left")) > 0.95
    assert (np.sign(own) == np.sign(overlay.template))[np.abs(own) >= 8].mean() > 0.95
    assert (overlay.template != 0)[own == 0].mean() < 0.005
    drawn = np.asarray(overlay.drawn())
    assert drawn.shape == (SIDE, SIDE)
    assert (drawn > 0)[overlay.template.any(axis=0)].all()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [(1, 1), (40, 300), (300, 40), (256, 256), (1000, 700)])
def test_views_of_any_size(view, size):
    gradients = view_gradients(Image.new("RGBA", size, (10, 20, 30, 100)), view)
    assert gradients.shape == (2, SIDE, SIDE)
    assert not gradients.any(), "a border of a small picture is no gradient"


def test_views_show_the_pictures_own_pixels():
    pixels = np.random.default_rng(0).integers(0, 9, (300, 400), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    steps = np.diff(pixels.astype(int), axis=1)
    for view, (top, left) in {
        "top left": (0, 0),
        "top right": (0, 144),
        "bottom left": (44, 0),
        "bottom right": (44, 144),
        "centre": (22, 72),
    }.items():
        across = view_gradients(picture, view)[0]
        assert (across[:, :-1] == steps[top : top + SIDE, left : left + SIDE - 1]).all()


def test_the_same_pictures_give_the_same_overlay():
    marked = [stamp(picture, "centre") for picture in PICTURES[:30]]
    first, second = estimate(marked), estimate(marked)
    assert (first.template == second.template).all()
    assert first.share == second.share
