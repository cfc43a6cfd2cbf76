"""Frames drawn around pictures come off, and pictures without one stay as they are."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleidogan.data.preparing.frames import Frame, find_frame, machineray_box, preview, remove_frame
from kaleidogan.data.procedural import Gallery

ROOT = Path(__file__).parents[1]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "frames.json").read_text())
REAL = os.environ.get("KALEIDOGAN_FRAMED_PICTURES")
"""A folder with the pictures that the golden file names: their licences keep them out of the repository."""
GOLD, CREAM, BLACK = (178, 141, 72), (244, 240, 230), (0, 0, 0)


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        spec = importlib.util.spec_from_file_location("bench_frames", ROOT / "benchmarks" / "frames.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def painting(number=0, size=(320, 400), style="flow"):
    return Image.fromarray(Gallery(num_images=number + 1, seed=2, styles=(style,)).draw(number, size).pixels)


def framed(picture, *bars):
    """Put plain bars around a picture, the innermost first: (colour, left, top, right, bottom)."""
    for color, left, top, right, bottom in bars:
        larger = Image.new("RGB", (picture.width + left + right, picture.height + top + bottom), color)
        larger.paste(picture, (left, top))
        picture = larger
    return picture


def bevelled(picture, width, colors=(GOLD, (120, 90, 40), (210, 180, 120))):
    """Put a frame of three mouldings around a picture."""
    share = width // 3
    return framed(picture, *((color, share, share, share, share) for color in colors))


def assert_found(frame, box, size, tolerance=0.01):
    """Nothing of the frame is left, and at most 1 % of the painting lost."""
    found, truth = np.array(frame.box), np.array(box)
    inward = (found - truth) * (1, 1, -1, -1)
    assert inward.min() >= 0, (frame, box)
    assert (inward <= np.array([*size, *size]) * tolerance + 1).all(), (frame, box)


# MachineRay's search


@pytest.mark.parametrize("cut", [(0, 0, 0, 0), (3, 2, 5, 4), (10, 10, 10, 10)])
def test_machineray_cuts_plain_lines(cut):
    left, top, right, bottom = cut
    pixels = np.full((330, 330, 3), 200, np.uint8)
    pixels[:, :left], pixels[:top] = 0, 0
    pixels[:, 330 - right :], pixels[330 - bottom :] = 0, 0
    assert machineray_box(pixels) == (left, top, 330 - right, 330 - bottom)


def test_machineray_looks_at_a_thirtieth_only():
    pixels = np.full((300, 600, 3), 200, np.uint8)
    pixels[:, :60], pixels[:60] = 0, 0
    assert machineray_box(pixels) == (20, 10, 600, 300)


@pytest.mark.parametrize(("level", "cut"), [(200 - 17, 0), (200 - 18, 5)])
def test_machineray_wants_a_distance_of_thirty(level, cut):
    # 17 in each channel is a distance of 29.4, 18 one of 31.2.
    pixels = np.full((300, 300, 3), 200, np.uint8)
    pixels[:, :5] = level
    assert machineray_box(pixels) == (cut, 0, 300, 300)


@pytest.mark.parametrize(("level", "cut"), [(142, 0), (141, 4)])
def test_machineray_wants_an_even_line(level, cut):
    # Half the line is `level`, half black: the variances add up to 3 (level / 2)^2, 15123 or 14910.
    pixels = np.full((300, 300, 3), 250, np.uint8)
    pixels[:, :4] = 0
    pixels[::2, :4] = level
    assert machineray_box(pixels) == (cut, 0, 300, 300)


def test_machineray_eats_plain_borders_of_a_painting():
    # Its known weakness, kept.
    pixels = np.full((300, 300, 3), 200, np.uint8)
    pixels[:6] = (20, 60, 120)
    assert machineray_box(pixels) == (0, 6, 300, 300)


# The robust search


@pytest.mark.parametrize("width", [6, 15, 30, 60, 90])
def test_frames_thin_and_thick(width):
    picture = bevelled(painting(), width)
    assert_found(find_frame(picture), (width, width, width + 400, width + 320), (400, 320))
    assert find_frame(picture).angle == 0


def test_a_mat_within_a_frame():
    picture = bevelled(framed(painting(), (CREAM, 40, 40, 40, 55)), 18)
    assert_found(find_frame(picture), (58, 58, 458, 378), (400, 320))


@pytest.mark.parametrize("color", [(255, 255, 255), (128, 128, 128), BLACK])
@pytest.mark.parametrize("widths", [(20, 30, 40, 25), (0, 30, 0, 30), (25, 0, 0, 35), (0, 0, 10, 0)])
def test_margins_of_scans(color, widths):
    left, top, _, _ = widths
    picture = framed(painting(style="fractal"), (color, *widths))
    found = find_frame(picture)
    for side, width in enumerate(widths):
        if not width:
            assert found.box[side] == (0, 0, *picture.size)[side]
    assert_found(found, (left, top, left + 400, top + 320), (400, 320))


@pytest.mark.parametrize("angle", [-5, -2.2, -0.6, 1, 3.3, 5])
def test_turned_frames(angle, bench):
    picture = framed(bevelled(painting(), 36), ((225, 222, 215), 40, 40, 40, 40))
    truth = bench.Framed(
        picture.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(225, 222, 215)), (76, 76, 476, 396), angle
    )
    found = find_frame(truth.picture)
    assert abs(found.angle - angle) <= 0.25
    good, _, left_over, _ = bench.judge(truth, found)
    assert good
    assert left_over <= 0.003


@pytest.mark.parametrize("style", ["fields", "circles", "triangles", "stripes", "tiles", "flow", "fractal"])
def test_abstract_paintings_stay(style):
    kept = 0
    for number in range(6):
        picture = painting(number, style=style)
        kept += remove_frame(picture) is picture
    assert kept >= 5


def test_dark_corners_and_skies_stay():
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    noise = np.random.default_rng(0).normal(0, 6, (300, 400, 1))
    vignette = np.clip(220 - 200 * (x**2 + y**2), 0, 255)[..., None] * (1, 0.8, 0.6) + noise
    sky = np.where(y[..., None] < 0.1 * np.sin(9 * x)[..., None] - 0.4, (150, 180, 220), (70, 90, 50)) + noise
    for pixels in (vignette, sky):
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        assert remove_frame(picture) is picture


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (400, 5), (47, 47), (48, 48), (60, 900)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_any_size_and_mode(size, mode):
    for picture in (Image.new(mode, size, 0), painting().resize(size).convert(mode)):
        for search in ("machineray", "robust"):
            removed = remove_frame(picture, search)
            assert removed.mode == mode
            assert min(removed.size) >= 1


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_modes_are_kept(mode):
    picture = bevelled(painting(), 30).convert(mode)
    removed = remove_frame(picture)
    assert removed.mode == mode
    assert removed.size == (find_frame(picture).box[2] - find_frame(picture).box[0], removed.height)
    assert abs(removed.width - 400) <= 5


def test_transparent_margins_count_as_white():
    clear = Image.new("RGBA", (500, 420), (0, 0, 0, 0))
    clear.paste(painting(style="fractal"), (50, 50))
    assert_found(find_frame(clear), (50, 50, 450, 370), (400, 320))
    assert np.asarray(remove_frame(clear))[:, :, 3].min() == 255


def test_the_same_twice_and_nothing_more_to_remove():
    picture = bevelled(painting(), 45)
    assert find_frame(picture) == find_frame(picture)
    removed = remove_frame(picture)
    assert remove_frame(removed) is removed


def test_preview_shows_the_rectangle():
    picture = bevelled(painting(), 45)
    drawn = np.asarray(preview(picture, Frame((45, 45, 445, 365), 0.0))).astype(int)
    assert drawn.shape == (410, 490, 3)
    yellow = np.abs(drawn - (255, 255, 0)).max(axis=-1) < 8
    assert yellow[45, 60:430].all()
    assert yellow[60:350, 45].all()
    assert not yellow[100:300, 100:400].all()


def test_the_golden_rectangles_are_rectangles():
    assert len(GOLDEN) == 30
    for truth in GOLDEN.values():
        left, top, right, bottom = truth["box"]
        assert 0 <= left < right
        assert 0 <= top < bottom


@pytest.mark.slow
def test_most_drawn_frames_come_off(bench, tmp_path):
    for number in range(8):
        style = ("flow", "fractal", "triangles", "tiles")[number % 4]
        painting(number, (480, 600), style).save(tmp_path / f"{number}.png")
    results = {}
    for kind, _, truth in bench.synthetic(tmp_path, seed=3, per_kind=8):
        results.setdefault(kind, []).append(bench.judge(truth, find_frame(truth.picture))[0])
    assert all(results["unframed"])
    assert np.mean([one for some in results.values() for one in some]) >= 0.8, results


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="KALEIDOGAN_FRAMED_PICTURES names no folder")
def test_real_pictures(bench):
    results = [bench.judge(truth, find_frame(truth.picture))[0] for _, _, truth in bench.real(Path(REAL))]
    assert np.mean(results) >= 0.75
