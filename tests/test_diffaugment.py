"""DiffAugment against closed forms and its published ranges."""

import pytest
import torch

from kaleidogan import config
from kaleidogan.training.augment import diffaugment
from kaleidogan.training.augment.diffaugment import DiffAugment
from kaleidogan.training.losses import R1

TARGET = "kaleidogan.training.augment.diffaugment.DiffAugment"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shapes_and_types(channels, dtype):
    images = torch.rand(4, channels, 12, 20, dtype=dtype) * 2 - 1
    found = DiffAugment()(images)
    assert found.shape == images.shape
    assert found.dtype == dtype
    assert found.isfinite().all()


def test_brightness_contrast_and_saturation_have_their_ranges():
    # One pixel red, one white: their mean, their distance and their hue tell the three draws apart.
    images = torch.tensor([[1.0, -1, -1], [1, 1, 1]], dtype=torch.float64).T[None, :, None]
    found = diffaugment.color(images.expand(20_000, -1, -1, -1))
    middle = found.mean((1, 2, 3))
    brightness = middle - images.mean()
    assert brightness.min() == pytest.approx(-0.5, abs=0.001)
    assert brightness.max() == pytest.approx(0.5, abs=0.001)
    assert brightness.mean() == pytest.approx(0, abs=0.01)
    contrast = (found[:, :, 0, 1].mean(1) - found[:, :, 0, 0].mean(1)) / (4 / 3)
    assert contrast.min() == pytest.approx(0.5, abs=0.001)
    assert contrast.max() == pytest.approx(1.5, abs=0.001)
    saturation = (found[:, 0, 0, 0] - found[:, 1, 0, 0]) / 2 / contrast
    assert saturation.min() == pytest.approx(0, abs=0.001)
    assert saturation.max() == pytest.approx(2, abs=0.001)
    assert saturation.mean() == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(torch.stack([brightness, contrast, saturation])).tril(-1).abs().max() < 0.03


def test_a_gray_picture_stays_gray_and_alpha_stays():
    images = torch.rand(8, 1, 8, 8).expand(-1, 4, -1, -1)
    found = diffaugment.color(images)
    torch.testing.assert_close(found[:, 0], found[:, 2])
    assert torch.equal(found[:, 3], images[:, 3])


@pytest.mark.parametrize("dim", [2, 3])
def test_a_shift_moves_whole_pixels_and_brings_in_zeros(dim):
    images = torch.rand(3, 3, 10, 12) + 1
    found = diffaugment.shift(images, torch.tensor([2, 0, -3]), dim)
    side = images.shape[dim]
    assert torch.equal(found[0].narrow(dim - 1, 2, side - 2), images[0].narrow(dim - 1, 0, side - 2))
    assert (found[0].narrow(dim - 1, 0, 2) == 0).all()
    assert torch.equal(found[1], images[1])
    assert torch.equal(found[2].narrow(dim - 1, 0, side - 3), images[2].narrow(dim - 1, 3, side - 3))
    assert (found[2].narrow(dim - 1, side - 3, 3) == 0).all()


def test_translations_reach_an_eighth():
    found = diffaugment.translation(torch.ones(2000, 1, 16, 32))
    rows, columns = (found[:, 0].amax(dim) == 0 for dim in (2, 1))
    assert rows.sum(1).max() == 2
    assert columns.sum(1).max() == 4
    assert (rows.sum(1) == 0).double().mean() == pytest.approx(1 / 5, abs=0.03)


def test_cutout_cuts_each_image_and_half_of_each_side():
    cut = diffaugment.cutout(torch.ones(2000, 3, 16, 24)) == 0
    area = cut[:, 0].flatten(1).sum(1)
    assert area.max() == 8 * 12
    assert area.min() >= 4 * 6


def test_the_policy_says_what_is_done():
    images = torch.ones(4, 3, 16, 16)
    assert (DiffAugment(policy=("color",))(images) != 0).any()
    assert set(DiffAugment(policy=("cutout",))(images).unique().tolist()) == {0, 1}
    assert config.build(config.check({"augment": {"_target_": TARGET, "policy": "color"}}))[
        "augment"
    ].policy == ("color",)
    with pytest.raises(config.ConfigError, match="policy"):
        config.check({"augment": {"_target_": TARGET, "policy": ["colour"]}})


def test_gradients_of_gradients():
    images = (torch.rand(2, 3, 8, 8, dtype=torch.float64) * 2 - 1).requires_grad_()
    augment = DiffAugment()

    def fixed(images):
        torch.manual_seed(1)
        return augment(images) ** 2

    assert torch.autograd.gradcheck(fixed, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(fixed, images, fast_mode=True)
    weight = torch.randn(3 * 64, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(R1(1.0)(lambda x: augment(x).flatten(1) @ weight, images), weight)
    assert gradient.abs().sum() > 0
