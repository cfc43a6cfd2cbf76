"""Which pictures are left out: measures against closed forms, copies against changed pictures."""

import io
import math
import pickle
import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from kaleidogan.data.preparing.filters import (
    DISTANCE,
    EMPTINESS,
    SHARPNESS,
    Duplicates,
    Limits,
    Measures,
    best,
    fingerprint,
    judge,
    margins,
    measure,
)
from kaleidogan.data.procedural import Gallery

GALLERY = Gallery(seed=1, styles=("squares", "circles", "triangles", "tiles"))
PICTURES = [Image.fromarray(GALLERY.draw(number, (256, 256)).pixels) for number in range(36)]


def edge(sigma, dark=28.0, bright=228.0, side=64):
    """Draw a vertical edge under a Gaussian blur: its integral, at the centres of the pixels."""
    places = np.arange(side) - (side - 1) / 2
    row = [dark + (bright - dark) * (1 + math.erf(place / (math.sqrt(2) * sigma))) / 2 for place in places]
    return Image.fromarray(np.tile(np.rint(row).astype(np.uint8), (side, 1)))


@pytest.mark.parametrize("sigma", [0.3, 0.6, 0.8, 1.0, 1.2])
@pytest.mark.parametrize(("dark", "bright"), [(28, 228), (100, 160), (200, 10)])
def test_sharpness_of_a_blurred_edge(sigma, dark, bright):
    expected = math.erf(1 / (2 * math.sqrt(2) * sigma))
    blurred = edge(sigma, dark, bright)
    assert measure(blurred).sharpness == pytest.approx(expected, abs=0.02)
    assert measure(blurred.transpose(Image.Transpose.ROTATE_90)).sharpness == measure(blurred).sharpness
    assert (expected < SHARPNESS) == (sigma > 1.1)


def test_sharpness_is_that_of_the_working_copy():
    small = measure(edge(1.0, side=128)).sharpness
    large = measure(edge(4.0, side=1024)).sharpness
    assert large == pytest.approx(small, abs=0.03)


def test_sharpness_falls_with_blur_on_pictures():
    for picture in PICTURES:
        sharp, soft, blurred = (
            measure(picture.filter(ImageFilter.GaussianBlur(sigma))).sharpness for sigma in (0, 1, 2)
        )
        assert sharp > soft > blurred
        assert sharp > SHARPNESS > blurred


def test_sharpness_without_an_edge_is_zero():
    assert measure(Image.linear_gradient("L")).sharpness == 0
    assert measure(Image.new("RGB", (200, 100), "red")).sharpness == 0


@pytest.mark.parametrize("filled", [0.0, 0.125, 0.25, 0.4375])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_emptiness_is_the_share_of_the_ground(filled, mode):
    pixels = np.full((64, 64), 200, np.uint8)
    rng = np.random.default_rng(0)
    num = round(filled * 64 * 64)
    pixels.flat[:num] = rng.choice([0, 60, 120, 255], num)
    assert measure(Image.fromarray(pixels).convert(mode)).emptiness == 1 - filled


def test_emptiness_takes_each_channel():
    pixels = np.full((10, 10, 3), (10, 20, 200), np.uint8)
    pixels[:3, :, 0], pixels[3:5, :, 2] = 40, 100
    assert measure(Image.fromarray(pixels)).emptiness == 0.5
    assert measure(Image.fromarray(np.full((10, 10, 3), (10, 20, 200), np.uint8))).emptiness == 1


def test_transparency_is_judged_on_white():
    clear = Image.new("RGBA", (300, 300), (255, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (100, 100, 200, 200))
    white = Image.new("RGB", (300, 300), "white")
    white.paste((0, 0, 0), (100, 100, 200, 200))
    assert measure(clear) == measure(white)


@pytest.mark.parametrize("size", [(1, 1), (3, 1000), (1, 70000), (20000, 10), (7, 7), (8, 8)])
def test_any_size_is_measured(size):
    measures = measure(Image.new("RGB", size, "red"))
    assert measures == Measures(min(size), 0.0, 1.0, 0)
    assert pickle.loads(pickle.dumps(measures)) == measures


def waves(down, across, strength, ground=128.0, side=32):
    """Draw one wave of the cosine transform."""
    angles = np.pi * (2 * np.arange(side) + 1) / (2 * side)
    return ground + strength * np.cos(down * angles)[:, None] * np.cos(across * angles)


DIAGONALS = [(row, total - row) for total in range(1, 11) for row in range(total + 1)][:64]


@pytest.mark.parametrize("number", [0, 1, 2, 4, 30, 63])
def test_each_bit_of_the_fingerprint_is_a_wave(number):
    wave = waves(*DIAGONALS[number], 100)
    found = fingerprint(Image.fromarray(np.rint(wave).astype(np.uint8)))
    opposite = fingerprint(Image.fromarray(np.rint(256 - wave).astype(np.uint8)))
    assert found >> (63 - number) & 1
    assert not opposite >> (63 - number) & 1
    # Rounding to 8 bits makes harmonics of a wave that is alone.
    assert found.bit_count() <= 3
    assert opposite.bit_count() <= 2


def test_the_fingerprint_against_the_transform_in_floating_point():
    picture = PICTURES[5].convert("L").resize((32, 32), Image.Resampling.BOX)
    pixels = np.asarray(picture).astype(float)
    strengths = np.array([(waves(down, across, 1, 0) * pixels).sum() for down, across in DIAGONALS])
    bits = strengths > np.abs(strengths).mean() / 8
    assert fingerprint(picture) == int("".join("01"[bit] for bit in bits.astype(int)), 2)


def test_the_fingerprint_knows_no_brightness_size_or_colour():
    pixels = np.asarray(PICTURES[3].convert("L")) // 2
    whole = fingerprint(Image.fromarray(pixels))
    assert fingerprint(Image.fromarray(pixels + 100)) == whole
    assert fingerprint(Image.fromarray(pixels.repeat(2, axis=0).repeat(3, axis=1))) == whole
    assert fingerprint(Image.fromarray(pixels).convert("RGB")) == whole
    assert fingerprint(Image.new("L", (50, 40))) == fingerprint(Image.new("RGB", (9, 9), "white")) == 0


def jpeg(picture, quality):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


CHANGES = {
    "jpeg": lambda picture: jpeg(picture, 50),
    "smaller": lambda picture: picture.resize((130, 130), Image.Resampling.LANCZOS),
    "larger": lambda picture: picture.resize((500, 500), Image.Resampling.BICUBIC),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.8),
    "gray": lambda picture: picture.convert("L"),
    "cropped": lambda picture: picture.crop((2, 2, 254, 254)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_copies_are_found_and_others_are_not(name):
    kept = Duplicates()
    for picture in PICTURES:
        assert kept.find(measure(picture).fingerprint) is None
        kept.add(measure(picture).fingerprint)
    found = [kept.find(measure(CHANGES[name](picture)).fingerprint) for picture in PICTURES]
    assert {number for number in found if number is not None} <= set(range(len(PICTURES)))
    right = sum(number == place for place, number in enumerate(found))
    assert right >= 0.75 * len(PICTURES)
    assert all(number in (place, None) for place, number in enumerate(found))


def test_duplicates_against_a_plain_search():
    rng = np.random.default_rng(0)
    prints = [int(value) for value in rng.integers(0, 2**64, 1500, dtype=np.uint64)]
    for flips in range(12):
        for number in rng.integers(0, 1500, 30):
            bits = rng.choice(64, flips, replace=False)
            prints.append(prints[number] ^ sum(1 << int(bit) for bit in bits))
    kept, plain = Duplicates(5), []
    for one in prints:
        near = [
            number
            for number, other in enumerate(plain)
            if (one ^ other).bit_count() <= min(5, one.bit_count() // 4)
        ]
        assert kept.find(one) == (near[0] if near else None)
        if not near:
            kept.add(one)
            plain.append(one)
    assert len(kept) == len(plain)
    assert 1500 < len(plain) < len(prints)
    continued = Duplicates(5, kept.fingerprints)
    assert continued.fingerprints.tolist() == plain
    assert [continued.find(one) for one in prints] == [kept.find(one) for one in prints]
    continued.add(7)
    assert len(continued) == len(kept) + 1


def test_plain_drawings_need_more_likeness():
    kept = Duplicates(6, [0, 0b1111 << 20])
    assert kept.find(0) == 0
    assert kept.find(0b111) is None
    assert kept.find(0b11111 << 20) == 1
    assert kept.find(0b111111 << 20) is None


def test_a_hundred_thousand_pictures_take_seconds():
    prints = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    kept = Duplicates(DISTANCE, prints)
    start = time.process_time()
    for one in prints[-500:].tolist():
        assert kept.find(one) is not None
    # All of them, each against half as many: 100 times this.
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("distance", [-1, 64])
def test_a_distance_beyond_the_bits_is_refused(distance):
    with pytest.raises(ValueError, match=f"distance={distance} is not in 0..63"):
        Duplicates(distance)


GOOD = Measures(min_side=64, sharpness=0.7, emptiness=0.5, fingerprint=1)
ALL = Limits(min_side=64, min_sharpness=SHARPNESS, max_emptiness=EMPTINESS)


def test_nothing_is_refused_unless_asked_for():
    worst = Measures(min_side=1, sharpness=0.0, emptiness=1.0, fingerprint=0)
    assert judge(worst, Limits()) is None
    assert margins(worst, Limits()) == {}
    assert judge(GOOD, ALL) is None


@pytest.mark.parametrize(
    ("measures", "name", "text"),
    [
        (Measures(63, 0.7, 0.5, 1), "too_small", "too small: 63 < 64 px"),
        (Measures(64, 0.0214, 0.5, 1), "blur", "blurred: sharpness 0.0214 < 0.35"),
        (Measures(64, 0.7, 0.99954, 1), "empty", "nearly empty: 0.9995 of it one colour > 0.98"),
        (Measures(1, 0.0, 1.0, 0), "too_small", "too small: 1 < 64 px"),
        (Measures(64, 0.0, 1.0, 0), "empty", "nearly empty: 1 of it one colour > 0.98"),
    ],
)
def test_why_a_picture_is_refused(measures, name, text):
    fault = judge(measures, ALL)
    assert (fault.filter, f"{fault.reason}: {fault.detail}") == (name, text)
    assert margins(measures, ALL)[name] < 0


def test_margins():
    limits = Limits(min_side=50, min_sharpness=0.4, max_emptiness=0.9)
    assert margins(Measures(100, 0.5, 0.85, 0), limits) == pytest.approx(
        {"too_small": 1, "blur": 0.25, "empty": 0.5}
    )
    assert margins(Measures(50, 0.4, 0.9, 0), limits) == pytest.approx(
        {"too_small": 0, "blur": 0, "empty": 0}
    )
    assert margins(Measures(0, 0.0, 1.0, 0), limits) == {"too_small": -1, "blur": -1, "empty": -1}


def test_the_best():
    cut = best([0.1, 0.9, 0.5, 0.5, 0.5, 0.2], keep=3, num_around=2)
    assert cut.kept == {1, 2, 3}
    assert cut.around == (2, 3, 4, 5)
    assert best([3, 1, 2], keep=5).kept == {0, 1, 2}
    assert best([3, 1, 2], keep=0) == best([3, 1, 2], 0)
    assert best([3, 1, 2], keep=0).around == (0, 2, 1)
    assert best([], keep=2).kept == frozenset()


def test_scores_must_be_numbers():
    with pytest.raises(ValueError, match="the score of picture 1 is not a number"):
        best([1.0, math.nan], 1)
    with pytest.raises(ValueError, match="keep=-1 is negative"):
        best([1.0], -1)


def test_a_scorer_chooses_the_sharp_ones():
    def sharpness(pictures):
        return [measure(picture).sharpness for picture in pictures]

    mixed = [
        picture.filter(ImageFilter.GaussianBlur(2)) if number % 3 else picture
        for number, picture in enumerate(PICTURES)
    ]
    assert best(sharpness(mixed), keep=12).kept == set(range(0, 36, 3))
