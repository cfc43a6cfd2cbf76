"""The sliced Wasserstein distance: its pyramid, its closed forms, and what it sees of a blur."""

from itertools import pairwise
from math import pi, sqrt

import pytest
import torch

from conftest import blobs
from kaleidogan.metrics import swd
from kaleidogan.metrics.swd import (
    SlicedWasserstein,
    cut_patches,
    distance,
    enlarge,
    laplacian_pyramid,
    low_pass,
    normalise,
    project,
    shrink,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)  # a second one has little to do here but to wait


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pictures(count: int, size: int, seed: int = 0) -> torch.Tensor:
    made = torch.stack([torch.from_numpy(blob) for blob in blobs(count, size, seed=seed)])
    return made.permute(0, 3, 1, 2) / 127.5 - 1


# The pyramid


def test_the_low_pass_is_binomial():
    spot = torch.zeros(1, 1, 9, 9)
    spot[0, 0, 4, 4] = 1
    taps = torch.tensor([0, 0, 1, 4, 6, 4, 1, 0, 0]) / 16
    assert torch.equal(low_pass(spot)[0, 0], torch.outer(taps, taps))


@pytest.mark.parametrize("size", [(3, 3), (16, 16), (17, 20)])
def test_what_is_constant_passes_up_and_down(size):
    plain = torch.full((2, 3, *size), 0.3, dtype=torch.float64)
    torch.testing.assert_close(low_pass(plain), plain)
    torch.testing.assert_close(enlarge(shrink(plain), *size), plain)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((64, 64), [(64, 64), (32, 32), (16, 16)]),
        ((16, 16), [(16, 16)]),
        ((12, 12), [(12, 12)]),
        ((3, 5), [(3, 5)]),
        ((24, 96), [(24, 96)]),
        ((32, 64), [(32, 64), (16, 32)]),
        ((33, 62), [(33, 62), (17, 31)]),
    ],
)
def test_the_pyramid_halves_down_to_16_and_rebuilds_the_picture(size, sizes):
    whole = noise(2, 3, *size, dtype=torch.float64)
    levels = laplacian_pyramid(whole)
    assert [tuple(level.shape[2:]) for level in levels] == sizes
    built = levels[-1]
    for residual in levels[-2::-1]:
        built = residual + enlarge(built, *residual.shape[2:])
    torch.testing.assert_close(built, whole)


def test_what_is_smooth_is_in_the_last_level():
    across = torch.linspace(-1, 1, 64)
    *fine, _ = laplacian_pyramid(across.expand(1, 1, 64, 64))
    assert all(level[..., 8:-8, 8:-8].abs().max() < 1e-5 for level in fine)


# From patches to a distance


def test_patches_are_cut_where_they_are_asked_for():
    whole = noise(2, 3, 10, 12)
    places = torch.tensor([[[0, 3], [7, 1]], [[0, 9], [2, 5]]])
    cut = cut_patches(whole, places, 3)
    assert torch.equal(cut[0, 1], whole[0, :, 3:6, 9:12].permute(1, 2, 0))
    assert torch.equal(cut[1, 0], whole[1, :, 7:10, 2:5].permute(1, 2, 0))


def test_each_channel_is_normalised_and_a_constant_one_is_0():
    patches = noise(5, 4, 2, 2, 3) * torch.tensor([1.0, 10.0, 0.0]) + torch.tensor([3.0, 0.0, 1.0])
    rows = normalise(patches).view(-1, 3)
    torch.testing.assert_close(rows.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]))


def test_a_shift_is_as_far_as_it_shifts():
    rows, both_ways = noise(50, 1), torch.tensor([[1.0], [-1.0]])
    found = distance(project(rows + 0.25, both_ways), project(rows, both_ways))
    assert found == pytest.approx(250, rel=1e-4)


def test_a_shift_in_the_plane_is_two_over_pi_of_it_on_average():
    # The mean of |cos| over all directions; in whole turns of 200 steps.
    angles = torch.arange(200) * pi / 100
    directions = torch.stack([angles.cos(), angles.sin()], 1)
    rows = noise(50, 2)
    found = distance(project(rows + torch.tensor([0.3, 0.4]), directions), project(rows, directions))
    assert found == pytest.approx(500 * 2 / pi, rel=1e-3)


@pytest.mark.parametrize("directions", [1, 100])
@pytest.mark.parametrize("at_once", [1, 1000, 2**20])
def test_one_pixel_pictures_by_hand(directions, at_once, monkeypatch):
    monkeypatch.setattr(swd, "PROJECTIONS", at_once)
    reals = torch.tensor([-1.0, 1, -1, 1]).view(4, 1, 1, 1)
    fakes = torch.tensor([0.0, 0, 0, 1]).view(4, 1, 1, 1)
    # Normalised, the fakes are at -1 / sqrt(3) thrice and at sqrt(3) once.
    third = 1 / sqrt(3)
    expected = 1000 * (2 * (1 - third) + (1 + third) + (sqrt(3) - 1)) / 4
    found = SlicedWasserstein(reals, directions=directions)(fakes)
    assert found == {1: pytest.approx(expected, rel=1e-4)}


# The whole


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 16, 16), (4, 12, 20), (3, 48, 64)])
def test_a_set_is_at_0_from_itself(shape):
    some = noise(40, *shape)
    some[:, 3:] = 1  # an alpha that is opaque
    found = SlicedWasserstein(some)(some)
    assert max(found) == min(shape[1:])
    assert set(found.values()) == {0.0}


def test_brightness_and_contrast_of_the_whole_are_not_seen():
    reals = pictures(30, 32)
    assert max(SlicedWasserstein(reals)(reals * 0.5 + 0.2).values()) < 0.01


def test_another_sample_is_nearer_than_another_kind():
    reals = pictures(60, 32)
    measure = SlicedWasserstein(reals)
    near, far = measure(pictures(60, 32, seed=1)), measure(noise(60, 3, 32, 32))
    assert all(near[side] < far[side] / 4 for side in near)


def test_a_blur_is_seen_the_more_the_finer_the_level():
    reals = noise(32, 3, 64, 64)
    reals = reals + 4 * enlarge(enlarge(noise(32, 3, 16, 16, seed=1), 32, 32), 64, 64)
    measure = SlicedWasserstein(reals)
    blurred, found = reals, []
    for _ in range(3):
        blurred = low_pass(blurred)
        found.append(measure(blurred))
    assert all(one[64] < more[64] for one, more in pairwise(found))
    assert all(row[64] > row[32] > row[16] for row in found)
    assert found[0][64] > 8 * found[0][16]


def test_it_is_a_pure_function_of_the_pictures_and_the_seed():
    reals, fakes = noise(20, 3, 32, 32), noise(20, 3, 32, 32, seed=1)
    before = torch.get_rng_state()
    measure = SlicedWasserstein(reals)
    found = measure(fakes)
    assert measure(fakes) == SlicedWasserstein(reals)(fakes) == found
    assert SlicedWasserstein(reals, seed=1)(fakes) != found
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(21, 3, 16, 16), (20, 1, 16, 16), (20, 3, 16, 32)])
def test_other_counts_and_shapes_are_named(shape):
    measure = SlicedWasserstein(noise(20, 3, 16, 16))
    with pytest.raises(ValueError, match=r"fakes of shape .*16\) against reals of \(20, 3, 16, 16\)|32\)"):
        measure(noise(*shape))
