"""MachineRay's variants."""

import numpy as np
import pytest
from PIL import Image

from kaleidogan.data.preparing.variants import MAX_TINT, machineray_variants, tilt, tint

STILL = np.zeros((4, 2))


def noise(side=64, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def test_corners_that_stay_change_nothing():
    picture = noise()
    assert np.array_equal(np.asarray(tilt(picture, STILL)), np.asarray(picture))


def test_corners_that_move_alike_zoom():
    picture = noise(80)
    zoomed = np.asarray(tilt(picture, np.full((4, 2), 0.1)), float)
    expected = np.asarray(picture.crop((8, 8, 72, 72)).resize((80, 80), Image.Resampling.BICUBIC), float)
    assert np.abs(zoomed - expected).mean() < 1.5


def test_a_corner_is_where_it_moved_to():
    corners = STILL.copy()
    corners[0] = (0.25, 0.125)
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[8:10, 16:18] = 255
    tilted = np.asarray(tilt(Image.fromarray(pixels), corners))
    assert tilted[0, 0, 0] > 100
    assert np.argwhere(tilted[:, :, 0] > 128).max() < 8


def test_nothing_black_comes_in_at_the_border():
    white = Image.new("RGB", (32, 32), "white")
    for corners in (STILL, np.full((4, 2), 1e-6), np.full((4, 2), 0.25), np.full((4, 2), 9.0)):
        assert np.asarray(tilt(white, corners)).min() == 255


def test_hue_goes_round_and_saturation_ends():
    red = Image.new("HSV", (1, 1), (250, 250, 200)).convert("RGB")
    hue, saturation, value = tint(red, 20).convert("HSV").getpixel((0, 0))
    assert (hue, saturation) == (pytest.approx(14, abs=2), 255)
    assert value == 200
    gray = Image.new("RGB", (1, 1), (90, 90, 90))
    assert tint(gray, -20).getpixel((0, 0)) == (90, 90, 90)
    assert tint(gray, 0).getpixel((0, 0)) == (90, 90, 90)


def test_six_variants_of_the_seed_and_nothing_else():
    picture = noise()
    one, again, other = (
        [np.asarray(variant) for variant in machineray_variants(picture, seed)] for seed in (1, 1, 2)
    )
    assert len(one) == 6
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(variant.shape == (64, 64, 3) for variant in one)


def test_every_turn_and_every_tint_comes_up():
    """A picture whose quarters differ tells how it was turned; a hue that is far from both ends the tint."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :] = (0, 128, 0)
    pixels[:12, :12] = (0, 255, 0)
    turns, tints = set(), set()
    for seed in range(60):
        for variant in machineray_variants(Image.fromarray(pixels), seed):
            hsv = np.asarray(variant.convert("HSV")).astype(int)
            bright = np.array([hsv[4, 4, 2], hsv[4, 27, 2], hsv[27, 27, 2], hsv[27, 4, 2]])
            turns.add(int(bright.argmax()))
            tints.add(int(hsv[16, 16, 0]) - 85)
    assert turns == {0, 1, 2, 3}
    assert -MAX_TINT - 1 <= min(tints) < -17
    assert 17 < max(tints) <= MAX_TINT + 1
