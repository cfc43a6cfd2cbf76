"""A picture of any shape, to one shape."""

import numpy as np
import pytest
from PIL import Image

from kaleidogan.data.preparing.fitting import centre_box, fit, three_boxes
from kaleidogan.data.preparing.pictures import PictureError


def ramp(width: int, height: int, mode: str = "L") -> Image.Image:
    """Each column its own gray: where a crop was taken can be read off it."""
    return Image.fromarray(np.tile(np.arange(width, dtype=np.uint8), (height, 1))).convert(mode)


def columns(pixels: np.ndarray) -> list[int]:
    return pixels[0, :, 0].tolist()


def test_three_crops_of_a_wide_picture():
    left, centre, right = fit(ramp(40, 10), (10, 10), "three")
    assert columns(left.pixels) == list(range(0, 10))
    assert columns(centre.pixels) == list(range(15, 25))
    assert columns(right.pixels) == list(range(30, 40))


def test_three_crops_of_a_tall_picture():
    picture = ramp(40, 10).transpose(Image.Transpose.ROTATE_90)  # row 0 is 39
    top, centre, bottom = fit(picture, (10, 10), "three")
    assert top.pixels[:, 0, 0].tolist() == list(range(39, 29, -1))
    assert centre.pixels[0, 0, 0] == 24
    assert bottom.pixels[-1, 0, 0] == 0


def test_a_picture_of_the_shape_is_cropped_once():
    assert len(fit(ramp(20, 20), (10, 10), "three")) == 1
    assert three_boxes((48, 64), (3, 4)) == [(0, 0, 64, 48)]
    # One pixel too wide: there are two places, and the middle is one of them.
    assert len(three_boxes((10, 11), (1, 1))) == 1


def test_letterbox():
    (fitted,) = fit(Image.new("RGB", (40, 20), (9, 8, 7)), (16, 16), "letterbox")
    assert (fitted.pixels[4:12] == (9, 8, 7)).all()
    assert not fitted.pixels[:4].any()
    assert not fitted.pixels[12:].any()
    assert not fitted.enlarged
    (clear,) = fit(Image.new("RGBA", (40, 20), (9, 8, 7, 255)), (16, 16), "letterbox")
    assert (clear.pixels[4:12] == (9, 8, 7, 255)).all()
    assert not clear.pixels[:4].any()


def test_squash_shows_all():
    (fitted,) = fit(ramp(40, 10), (10, 10), "squash", "box")
    assert columns(fitted.pixels) == [4 * k + 2 for k in range(10)]  # the mean of four, a half up


def test_ratio_crops_to_a_shape_and_squashes():
    (fitted,) = fit(ramp(40, 10), (10, 10), "ratio", ratio=2.0)
    # The centre 20 x 10, two columns to one.
    assert columns(fitted.pixels) == [11 + 2 * k for k in range(10)]
    assert centre_box((805, 1024), (1.0, 1024 / 805)) == (0, 0, 1024, 805)


@pytest.mark.parametrize("size", [(64, 48), (128, 96), (127, 95), (32, 24), (65, 49)])
def test_none_takes_what_has_the_shape(size):
    (fitted,) = fit(Image.new("RGB", size), (48, 64), "none")
    assert fitted.pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("size", [(48, 64), (64, 64), (70, 48), (640, 470)])
def test_none_refuses_another_shape(size):
    with pytest.raises(PictureError, match=rf"another shape than the resolution's \({size[1]} x {size[0]}\)"):
        fit(Image.new("RGB", size), (48, 64), "none")


def test_filters_differ_and_enlarging_interpolates():
    picture = Image.effect_noise((64, 64), 80)
    found = {name: fit(picture, (16, 16), resize=name)[0].pixels for name in ("box", "bilinear", "lanczos")}
    assert (found["box"] == np.asarray(picture.resize((16, 16), Image.Resampling.BOX))[:, :, None]).all()
    assert not np.array_equal(found["box"], found["bilinear"])
    assert not np.array_equal(found["bilinear"], found["lanczos"])
    small = Image.effect_noise((8, 8), 80)
    (grown,) = fit(small, (16, 16), resize="box")
    assert grown.enlarged
    assert (grown.pixels[:, :, 0] == np.asarray(small.resize((16, 16), Image.Resampling.BICUBIC))).all()
