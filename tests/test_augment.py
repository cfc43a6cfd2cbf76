"""ADA's augmentations against closed forms, their published distributions, and what gradients need."""

import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from kornia.geometry.transform import warp_affine

from kaleidogan import config
from kaleidogan.training.augment import colour, corruption, geometry
from kaleidogan.training.augment.ada import ADA, GROUPS, groups_of
from kaleidogan.training.augment.colour import apply_colours, draw_colours
from kaleidogan.training.augment.corruption import Bands
from kaleidogan.training.augment.draws import Draws
from kaleidogan.training.augment.warp import Warp, downsample, probe, reflect, upsample
from kaleidogan.training.losses import R1

COUNT = 20_000
TARGET = "kaleidogan.training.augment.ada.ADA"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a second one has little to do here but to wait


def draws(p: float) -> Draws:
    """Draws for many images."""
    return Draws(torch.tensor(p), torch.empty(COUNT, 3, 1, 1, dtype=torch.float64))


def pictures(count=4, channels=3, height=32, width=32, dtype=torch.float32):
    return torch.rand(count, channels, height, width, dtype=dtype) * 2 - 1


def each(matrix: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return matrix.to(images.dtype).expand(len(images), -1, -1)


# The whole


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(32, 32), (12, 20)])
def test_at_p_0_it_is_the_identity_to_the_bit(channels, size):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        images = pictures(6, channels, *size, dtype=dtype)
        assert torch.equal(ADA(preset="bgcfnc")(images), images)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(16, 16), (12, 20), (64, 48)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_types_and_finite_values(channels, size, dtype):
    images = pictures(8, channels, *size, dtype=dtype)
    found = ADA(preset="bgcfnc", p=1.0)(images)
    assert found.shape == images.shape
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert not torch.equal(found, images)


def test_values_are_not_clamped():
    assert ADA(preset="color", p=1.0)(torch.ones(64, 3, 8, 8)).max() > 1


def test_an_image_for_which_nothing_is_drawn_is_untouched_among_others():
    images = pictures(400, 3, 12, 12)
    found = ADA(p=0.1)(images)
    same = (found == images).flatten(1).all(1).double().mean().item()
    # A flip is the identity in 1 draw of 2, a quarter turn in 1 of 4, a luma flip in 1 of 2; a shift of up to
    # 1.5 pixels rounds to none in 1 of 9; either rotation happens with p.
    expected = 0.95 * 0.925 * (1 - 0.1 * 8 / 9) * 0.9**4 * 0.9**4 * 0.95
    assert same == pytest.approx(expected, abs=0.08)


def test_p_is_live_and_in_the_state():
    augment, images = ADA(), pictures()
    assert augment.adaptive
    assert list(augment.state_dict()) == ["p"]
    augment.p.fill_(0.9)
    assert not torch.equal(augment(images), images)
    other = ADA()
    other.load_state_dict(augment.state_dict())
    assert other.p.shape == ()
    assert other.p.dtype == torch.float32
    assert other.p.item() == pytest.approx(0.9)
    assert not ADA(p=0.3).adaptive


def test_nothing_is_read_back_from_the_device(monkeypatch):
    """The meta device has shapes and no values: whoever looks at one fails."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # it knows no such device
    augment = ADA(preset="bgcfnc").to("meta")
    found = augment(torch.empty(4, 3, 32, 32, device="meta"))
    assert found.shape == (4, 3, 32, 32)


def test_autocast_does_not_round_the_pictures():
    augment, images = ADA(preset="bgcf", p=1.0), pictures()
    torch.manual_seed(1)
    plain = augment(images)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(images), plain)


def test_the_same_seed_augments_the_same():
    augment, images = ADA(preset="bgcfnc", p=0.7), pictures()
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(augment(images))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("bgc", ("blit", "geom", "color")),
        ("bgcfnc", GROUPS),
        (("noise", "blit"), ("blit", "noise")),
        (("bg", "cutout"), ("blit", "geom", "cutout")),
    ],
)
def test_presets_and_any_groups(preset, expected):
    assert ADA(preset=preset).groups == expected


def test_bad_settings_are_refused_with_names():
    with pytest.raises(ValueError, match=r"preset bgd is neither .* did you mean bg"):
        ADA(preset="bgd")
    with pytest.raises(ValueError, match=r"preset colour .* did you mean color"):
        groups_of(("blit", "colour"))
    with pytest.raises(ValueError, match="names no augmentation"):
        ADA(preset=())
    with pytest.raises(ValueError, match=r"target 1\.0 is not between 0 and 1"):
        ADA(target=1.0)


def test_yaml_is_checked_without_torch():
    def checked(**settings):
        return config.check({"augment": {"_target_": TARGET, **settings}})["augment"]

    assert checked(preset="bgc")["preset"] == ("bgc",)
    assert checked(preset=["blit", "color"])["preset"] == ("blit", "color")
    assert config.build(checked(preset="bg", p=0.5)).groups == ("blit", "geom")
    assert checked()["p"] is None
    for settings in ({"preset": "bgd"}, {"p": 1.5}, {"target": 1}, {"interval": 0}, {"kimg": 0}):
        with pytest.raises(config.ConfigError, match=next(iter(settings))):
            checked(**settings)


# Derivatives


@pytest.mark.parametrize("group", ["blit", "geom", "color", "filter", "noise", "cutout", "bgcfnc"])
def test_it_is_differentiable_twice(group):
    augment = ADA(preset=group, p=1.0)
    images = pictures(2, 3, 8, 8, dtype=torch.float64).requires_grad_()

    def fixed(images):
        torch.manual_seed(5)
        return augment(images) ** 2  # so that there is a second derivative

    assert torch.autograd.gradcheck(fixed, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(fixed, images, fast_mode=True)


def test_r1_through_it_is_that_of_the_linear_map_it_is():
    """Augmented images are A x + b, so the penalty on a linear critic w is |A^T w|^2."""
    augment, weight = ADA(preset="bgcf", p=1.0), torch.randn(3 * 64, dtype=torch.float64)

    def fixed(images):
        torch.manual_seed(6)
        return augment(images)

    images = pictures(1, 3, 8, 8, dtype=torch.float64).requires_grad_()
    weight.requires_grad_()
    (back,) = torch.autograd.grad(fixed(images).flatten() @ weight, images)  # A^T w
    penalty = R1(gamma=2.0)(lambda image: fixed(image).flatten(1) @ weight, images)
    torch.testing.assert_close(penalty, back.square().sum())
    (gradient,) = torch.autograd.grad(penalty, weight)
    there = fixed(back) - fixed(torch.zeros_like(back))  # A A^T w
    torch.testing.assert_close(gradient, 2 * there.flatten())


def test_the_probe_passes_here_and_names_the_version_where_it_cannot(monkeypatch):
    probe("cpu")

    def lacking(*args, **kwargs):
        raise RuntimeError("derivative for aten::grid_sampler_2d_backward is not implemented")

    monkeypatch.setattr(torch.autograd, "grad", lacking)
    with pytest.raises(ValueError, match=rf"PyTorch {torch.__version__.split('+')[0]}.* 2\.13"):
        probe("cpu")


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_and_gradients_pass_twice():
    probe("cuda")
    augment = ADA(preset="bgcfnc", p=1.0).cuda()
    images = pictures(8).cuda().requires_grad_()
    augment(images)  # the first call loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = augment(images)
        (gradient,) = torch.autograd.grad(found.square().sum(), images, create_graph=True)
        (twice,) = torch.autograd.grad(gradient.square().sum(), images)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert twice.isfinite().all()
    augment.p.fill_(0)
    assert torch.equal(augment(images), images)


# Published distributions


def is_moved(matrix: torch.Tensor) -> torch.Tensor:
    return (matrix != torch.eye(matrix.shape[-1], dtype=matrix.dtype)).flatten(1).any(1)


def share(which: torch.Tensor) -> float:
    return which.double().mean().item()


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_blitting_is_drawn_as_published(p):
    flipped, turns = geometry.draw_turn(draws(p), 8, 8)
    assert share(flipped) == pytest.approx(p / 2, abs=0.015)
    for turn in (1, 2, 3):
        assert share(turns == turn) == pytest.approx(p / 4, abs=0.015)
    _, turns = geometry.draw_turn(draws(p), 8, 16)
    assert set(turns.tolist()) == {0, 2}
    assert share(turns == 2) == pytest.approx(p / 2, abs=0.015)
    x, y = geometry.draw_whole_shift(draws(p), 64, 160)[:, :2, 2].T
    assert torch.equal(x, x.round())
    assert (x.abs().max(), y.abs().max()) == (20, 8)
    # Of 2 * 20 pixels, the one about 0 rounds to none.
    assert share((x != 0) | (y != 0)) == pytest.approx(p * (1 - 1 / 40 / 16), abs=0.015)
    assert x[x != 0].std() == pytest.approx(40 / math.sqrt(12), rel=0.05)


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_geometry_is_drawn_as_published(p):
    matrix = geometry.draw_transform(draws(p), 64, 128)
    assert share(is_moved(matrix)) == pytest.approx(1 - (1 - p) ** 4, abs=0.015)
    # The isotropic scale is what the area changes by: the rotations and the stretch leave it alone.
    log_scale = torch.linalg.det(matrix[:, :2, :2]).log2() / 2
    scaled = log_scale.abs() > 1e-9
    assert share(scaled) == pytest.approx(p, abs=0.015)
    assert log_scale[scaled].std() == pytest.approx(0.2, rel=0.04)
    # The stretch s, 1/s shows in the singular values, however rotated.
    values = torch.linalg.svdvals(matrix[:, :2, :2]).log2()
    stretch = (values[:, 0] - values[:, 1]) / 2
    stretched = stretch > 1e-7
    assert share(stretched) == pytest.approx(p, abs=0.015)
    assert stretch[stretched].square().mean().sqrt() == pytest.approx(0.2, rel=0.04)
    x, y = matrix[:, :2, 2].T
    assert share(x != 0) == pytest.approx(p, abs=0.015)
    assert x[x != 0].std() == pytest.approx(16, rel=0.04)
    assert y[y != 0].std() == pytest.approx(8, rel=0.04)


def test_either_rotation_happens_with_p_and_angles_are_uniform():
    matrix = geometry.draw_transform(draws(0.5), 64, 64)
    values = torch.linalg.svdvals(matrix[:, :2, :2]).log2()
    plain = matrix[(values[:, 0] - values[:, 1]).abs() < 1e-7]  # no stretch, so one angle tells
    angle = torch.atan2(plain[:, 1, 0], plain[:, 0, 0])
    assert share(angle.abs() > 1e-12) == pytest.approx(0.5, abs=0.02)
    parts = torch.histc(angle[angle.abs() > 1e-12], 8, -math.pi, math.pi)
    torch.testing.assert_close(parts / parts.sum(), torch.full((8,), 1 / 8).double(), atol=0.02, rtol=0)


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_colours_are_drawn_as_published(p):
    matrix = draw_colours(draws(p))
    assert share(is_moved(matrix)) == pytest.approx(1 - (1 - p) ** 4 * (1 - p / 2), abs=0.015)
    luma = torch.full((3,), 3**-0.5, dtype=torch.float64)
    along = luma @ matrix[:, :3, :3] @ luma  # contrast, and the flip as a sign
    assert share(along < 0) == pytest.approx(p / 2, abs=0.015)
    log_contrast = along.abs().log2()
    changed = log_contrast.abs() > 1e-9
    assert share(changed) == pytest.approx(p, abs=0.015)
    assert log_contrast[changed].std() == pytest.approx(0.5, rel=0.04)
    offset = matrix[:, :3, 3].mean(1) / along  # the brightness is added before the contrast
    assert share(offset != 0) == pytest.approx(p, abs=0.015)
    assert offset[offset != 0].std() == pytest.approx(0.2, rel=0.04)
    red = torch.tensor([2.0, -1, -1], dtype=torch.float64) / math.sqrt(6)
    green = torch.tensor([0.0, 1, -1], dtype=torch.float64) / math.sqrt(2)
    linear = matrix[:, :3, :3] / along.abs()[:, None, None]
    cosine, sine = red @ linear @ red, green @ linear @ red
    log_saturation = (cosine**2 + sine**2).sqrt().log2()
    changed = log_saturation.abs() > 1e-9
    assert share(changed) == pytest.approx(p, abs=0.015)
    assert log_saturation[changed].std() == pytest.approx(1.0, rel=0.04)
    angle = torch.atan2(sine, cosine)
    turned = angle.abs() > 1e-9
    assert share(turned) == pytest.approx(p, abs=0.015)
    assert angle[turned].square().mean().sqrt() == pytest.approx(math.pi / math.sqrt(3), rel=0.03)


def test_bands_noise_and_cutout_are_drawn_as_published():
    p = 0.6
    gains = Bands().draw(draws(p))
    assert share((gains != 1).any(1)) == pytest.approx(1 - 0.4**4, abs=0.015)
    # Whatever the normalisation, it is common to all bands: their ratios are the draws'.
    ratio = (gains[:, 3] / gains[:, 2]).log2()
    assert share(ratio.abs() < 1e-9) == pytest.approx(0.4**2, abs=0.015)
    assert ratio.square().mean().sqrt() == pytest.approx(math.sqrt(2 * p), rel=0.03)
    images = torch.zeros(COUNT, 4, 2, 2)
    noise = corruption.draw_noise(Draws(torch.tensor(p), images), images)
    assert (noise[:, 3] == 0).all()
    noisy = noise[:, :3].flatten(1)
    assert share((noisy != 0).any(1)) == pytest.approx(p, abs=0.015)
    assert noisy.square().mean().sqrt() == pytest.approx(0.1 * math.sqrt(p), rel=0.04)
    square = corruption.draw_square(torch.zeros(COUNT, 3, 16, 32)).double()
    inside = square.mean((0, 1))
    assert inside.max() == pytest.approx(0.25, abs=0.03)  # the middle: half of the centres, along each side
    assert inside[0, 0] == pytest.approx(0.25**2, abs=0.03)  # the corner: a quarter
    assert square.sum((1, 2, 3)).max() == 8 * 16


def test_one_draw_of_gains_keeps_the_expected_power():
    """With one band drawn, gains times the spectrum of a natural picture have a power of 1."""
    gains = Bands().draw(draws(0.2))
    power = torch.tensor(corruption.POWER, dtype=torch.float64)
    drawn_alone = (gains[:, :3] == gains[:, :1]).all(1)  # at most the highest band differs
    torch.testing.assert_close(
        (gains[drawn_alone].square() * power).sum(1), torch.ones(int(drawn_alone.sum())).double()
    )


def test_below_p_1_the_rotations_do_not_leak():
    """From the orientations after augmentation those before can be told: no frequency over them is lost."""
    for p in (0.5, 0.8):
        _, turns = geometry.draw_turn(draws(p), 8, 8)
        distribution = torch.bincount(turns, minlength=4).double() / COUNT
        eigenvalues = torch.fft.fft(distribution).abs()
        torch.testing.assert_close(eigenvalues[1:], torch.full((3,), 1 - p).double(), atol=0.02, rtol=0)


# Geometry


def test_turns_and_flips_are_those_of_torch_to_the_bit():
    image = pictures(1)
    for flipped in (False, True):
        for turns in range(4):
            expected = image.flip(3) if flipped else image
            expected = torch.rot90(expected, turns, (2, 3))
            found = geometry.turn(image, torch.tensor([flipped]), torch.tensor([turns]))
            assert torch.equal(found, expected)
    wide = pictures(1, 3, 8, 12)
    assert torch.equal(geometry.turn(wide, torch.tensor([False]), torch.tensor([2])), wide.flip(2, 3))


def test_up_then_down_and_whole_shifts_give_back_every_pixel():
    images = pictures(3, 3, 40, 32)
    warp = Warp()
    moved = warp(images, geometry.translation(torch.tensor([[4.0, 0.0], [0.0, -3.0], [-2.0, 5.0]])))
    inside = (slice(None), slice(12, -12), slice(12, -12))
    for image, found, shifts in zip(images, moved, ((0, 4), (-3, 0), (5, -2)), strict=True):
        expected = image.roll(shifts, (1, 2))
        torch.testing.assert_close(found[inside], expected[inside], atol=1e-5, rtol=0)
    fine = reflect(upsample(images, warp.lowpass), (5, 6, 5, 6))
    inside = (slice(None), slice(None), slice(6, -6), slice(6, -6))
    torch.testing.assert_close(downsample(fine, warp.lowpass)[inside], images[inside], atol=1e-5, rtol=0)


def test_what_comes_in_is_the_reflected_picture():
    ramp = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)
    found = Warp()(ramp, geometry.translation(torch.tensor([[10.0, 0.0]])))
    expected = F.pad(ramp, (10, 0, 0, 0), mode="reflect")[..., :32]
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_reflect_pads_as_far_as_one_likes():
    line = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    found = reflect(line, (7, 5, 0, 0))[0, 0, 0]
    assert found.tolist() == [1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]


def blob(size=64):
    """A smooth spot off the centre, and nothing near the edges."""
    y, x = torch.meshgrid(torch.arange(size) - 30.0, torch.arange(size) - 35.0, indexing="ij")
    return (torch.exp(-(x**2 + 2 * y**2) / 40) * 2)[None, None]


def test_a_quarter_rotation_is_a_quarter_turn_about_the_centre():
    angle = torch.tensor([math.pi / 2])
    found = Warp()(blob(), geometry.rotation(angle))
    torch.testing.assert_close(found, torch.rot90(blob(), -1, (2, 3)), atol=0.01, rtol=0)


def test_a_transform_and_its_inverse_give_the_picture_back():
    image, warp = blob(), Warp()
    for _ in range(5):
        matrix = geometry.compose(
            geometry.scaling(torch.randn(1) * 0.2, torch.randn(1) * 0.2),
            geometry.rotation(torch.rand(1) * 6),
            geometry.translation(torch.randn(1, 2) * 4),
        )
        back = warp(warp(image, matrix), torch.linalg.inv(matrix))
        inside = (slice(None), slice(None), slice(12, -12), slice(12, -12))
        torch.testing.assert_close(back[inside], image[inside], atol=0.03, rtol=0)


def test_a_scale_moves_the_edge_where_it_should():
    """A spot of standard deviation 4 has one of 8 at twice the size, about the centre."""
    image = torch.exp(-((torch.arange(64) - 31.5) ** 2) / 32)
    image = (image[:, None] * image)[None, None]
    found = Warp()(image, geometry.scaling(torch.ones(1), torch.zeros(1)))[0, 0]
    expected = torch.exp(-((torch.arange(64) - 31.5) ** 2) / 128)
    torch.testing.assert_close(found[32] / found[32].max(), expected, atol=0.01, rtol=0)


def test_the_warp_aliases_less_than_plain_bilinear_sampling():
    """Stripes too fine for the smaller picture should vanish; sampled as they are they turn coarse."""
    size, scale = 64, 0.6
    place = torch.arange(size) - 31.5
    stripes = torch.cos(2 * math.pi * 0.42 * place).expand(1, 1, size, size).contiguous()
    matrix = geometry.scaling(torch.tensor([math.log2(scale)]), torch.tensor([math.log2(scale)]))
    centre = geometry.translation(torch.full((1, 2), 31.5))
    whole = geometry.compose(torch.linalg.inv(centre), matrix, centre)
    plain = warp_affine(stripes, whole[:, :2], (size, size), padding_mode="reflection")
    inside = (slice(None), slice(None), slice(16, 48), slice(16, 48))
    ours = Warp()(stripes, matrix)[inside].square().mean()
    assert ours < 0.3 * plain[inside].square().mean()


# Colours


def test_colour_matrices_are_their_closed_forms():
    one = torch.ones(1, dtype=torch.float64)
    images = pictures(dtype=torch.float64)
    turned = apply_colours(images, each(colour.hue(one * 2 * math.pi / 3), images))
    torch.testing.assert_close(turned, images.roll(1, 1))  # red becomes green
    grayed = apply_colours(images, each(colour.saturation(one * -1000), images))
    torch.testing.assert_close(grayed, images.mean(1, keepdim=True).expand_as(images))
    gray = images[:, :1].expand_as(images)
    torch.testing.assert_close(apply_colours(gray, each(colour.luma_flip(one), images)), -gray)
    flipped = apply_colours(images, each(colour.luma_flip(one), images))
    torch.testing.assert_close(flipped, images - 2 * images.mean(1, keepdim=True))
    torch.testing.assert_close(apply_colours(images, each(colour.contrast(one), images)), images * 2)
    torch.testing.assert_close(
        apply_colours(images, each(colour.brightness(one * 0.3), images)), images + 0.3
    )
    both = geometry.compose(colour.brightness(one * 0.3), colour.contrast(one))
    torch.testing.assert_close(apply_colours(images, each(both, images)), (images + 0.3) * 2)


def test_alpha_is_left_alone():
    images = pictures(64, 4, 8, 8)
    found = ADA(preset=("color", "noise"), p=1.0)(images)
    assert torch.equal(found[:, 3], images[:, 3])
    torch.manual_seed(1)
    coloured = ADA(preset="color", p=1.0)(images)
    torch.manual_seed(1)
    torch.testing.assert_close(coloured[:, :3], ADA(preset="color", p=1.0)(images[:, :3]))


def test_gray_is_coloured_as_rgb_and_averaged():
    images = pictures(64, 1, 8, 8)
    torch.manual_seed(1)
    gray = ADA(preset="color", p=1.0)(images)
    torch.manual_seed(1)
    colours = ADA(preset="color", p=1.0)(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(gray, colours.mean(1, keepdim=True), atol=1e-5, rtol=1e-4)


# In place


def test_the_bands_add_up_to_the_identity():
    filters = torch.tensor(corruption.band_filters())
    assert filters.shape == (4, 43)
    delta = torch.zeros(43, dtype=torch.float64)
    delta[21] = 1
    torch.testing.assert_close(filters.sum(0), delta, atol=1e-12, rtol=0)
    torch.testing.assert_close(filters, filters.flip(1))
    for size in (12, 48):
        images = pictures(2, 3, size, size, dtype=torch.float64)
        gains = torch.ones(2, 4, dtype=torch.float64)
        assert torch.equal(Bands()(images, gains), images)
        torch.testing.assert_close(Bands()(images, gains * 2), images * 4, atol=1e-5, rtol=0)


@pytest.mark.parametrize("band", range(4))
def test_each_band_passes_its_octave(band):
    responses = torch.fft.rfft(torch.tensor(corruption.band_filters()), 512).abs()
    middle = (16, 48, 96, 192)[band]  # of the octaves up to 32, 64, 128 and 256
    assert responses[:, middle].argmax() == band
    assert responses[band, middle] > 0.6


def test_a_flat_picture_has_the_lowest_band_alone():
    flat = torch.full((1, 3, 32, 32), 0.5)
    found = Bands()(flat, torch.tensor([[3.0, 0.1, 0.2, 0.3]]))
    torch.testing.assert_close(found, flat * 9)


def test_cutout_is_half_of_each_side_in_middle_gray():
    images = torch.ones(500, 4, 16, 24)
    cut = ADA(preset="cutout", p=0.5)(images) == 0
    assert (cut == cut[:, :1]).all()
    area = cut[:, 0].flatten(1).sum(1)
    assert share(area > 0) == pytest.approx(0.5, abs=0.1)
    assert area.max() == 8 * 12
