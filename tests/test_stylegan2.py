"""StyleGAN2's networks: sizes, truncation, noise, mixing, conditions, and gradients in half precision."""

import math

import pytest
import torch

from kaleidogan.models.stylegan2 import Discriminator, Generator, is_residual, stage_channels, stage_sizes
from kaleidogan.training.losses import R1, PathLength
from kaleidogan.training.modules import StyleGAN2ADA

SMALL = {"latent_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a second one has little to do here but to wait


def make_generator(**options):
    """One in eval mode whose w_avg is not 0 and whose noise shows."""
    generator = Generator(**{"resolution": (16, 16), **SMALL, **options}).eval()
    generator.w_avg.normal_()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.5)
    return generator


def make_discriminator(**options):
    taken = {"resolution": (16, 16), "channel_base": 64, "channel_max": 8}
    return Discriminator(**{**taken, **options})


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


# Sizes


@pytest.mark.parametrize(
    ("resolution", "sizes"),
    [
        ((64, 64), [(4, 4), (8, 8), (16, 16), (32, 32), (64, 64)]),
        ((48, 32), [(6, 4), (12, 8), (24, 16), (48, 32)]),
        ((20, 16), [(5, 4), (10, 8), (20, 16)]),
        ((12, 12), [(3, 3), (6, 6), (12, 12)]),
    ],
)
def test_blocks_double_from_the_base_to_the_picture(resolution, sizes):
    assert stage_sizes(resolution) == sizes


def test_channels_are_the_base_over_the_side():
    assert stage_channels((64, 64), 16384, 512) == [512, 512, 512, 512, 256]
    assert stage_channels((256, 256), 16384, 512) == [512, 512, 512, 512, 256, 128, 64]
    assert stage_channels((1024, 1024), 32768, 512) == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    # A block of 48 x 32 has the area of one of 39, whose nearest power of two is 32.
    assert stage_channels((48, 32), 1024, 512) == [256, 128, 64, 32]
    assert stage_channels((16, 16), 4, 512) == [1, 1, 1]


@pytest.mark.parametrize(
    ("resolution", "base", "layers", "generator", "discriminator"),
    [
        # As counted in the official networks: those of 64 px to the last one, the others in 0.1 million.
        (64, 16384, 2, 22_243_608, 23_407_361),
        (256, 16384, 2, 23.2e6, 24.0e6),
        (256, 32768, 8, 30.0e6, 28.9e6),
        (1024, 32768, 8, 30.4e6, 29.0e6),
    ],
)
def test_parameter_counts_are_the_official_ones(resolution, base, layers, generator, discriminator):
    options = {"resolution": (resolution, resolution), "channel_base": base}
    with torch.device("meta"):
        found = count(Generator(mapping_layers=layers, **options)), count(Discriminator(**options))
    if resolution == 64:
        assert found == (generator, discriminator)
    assert found == pytest.approx((generator, discriminator), abs=0.05e6)


@pytest.mark.parametrize("resolution", [(48, 32), (20, 16), (12, 12), (16, 64)])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("architectures", [("skip", "resnet"), ("resnet", "orig")])
def test_any_size_channels_and_architecture_go_there_and_back(resolution, channels, architectures):
    shared = {"resolution": resolution, "channels": channels}
    generator = make_generator(**shared, generator_architecture=architectures[0])
    discriminator = make_discriminator(**shared, discriminator_architecture=architectures[1])
    image = generator(torch.randn(4, 8))
    assert image.shape == (4, *generator.image_shape) == (4, channels, *resolution)
    assert generator.num_ws == 2 * len(stage_sizes(resolution))
    logits = discriminator(image)
    assert logits.shape == (4,)
    parameters = [*generator.parameters(), *discriminator.parameters()]
    gradients = torch.autograd.grad(logits.sum(), parameters)
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)


def test_a_residual_generator_draws_one_picture_at_the_end():
    drawing = [block.to_picture is not None for block in make_generator().blocks]
    assert drawing == [True, True, True]
    residual = make_generator(generator_architecture="resnet")
    assert [block.to_picture is not None for block in residual.blocks] == [False, False, True]


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_each_row_of_w_is_looked_at(architecture):
    generator = make_generator(generator_architecture=architecture)
    w = generator.mapping(torch.randn(2, 8)).detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(generator.synthesis(w, noise="none").square().sum(), w)
    assert (gradient.abs().sum(2) > 0).all()


# From latent to w


def test_the_length_of_z_does_nothing():
    generator, z = make_generator(), torch.randn(3, 8)
    torch.testing.assert_close(generator.mapping(z * 100), generator.mapping(z))


@pytest.mark.parametrize("psi", [-1, 0, 0.5, 1, 1.5])
@pytest.mark.parametrize("cutoff", [None, 2, 6])
def test_truncation_scales_the_distance_from_the_mean_up_to_the_cutoff(psi, cutoff):
    generator, z = make_generator(), torch.randn(3, 8)
    w = generator.map(z, None)[:, None].expand(-1, 6, -1)
    found = generator.mapping(z, psi=psi, cutoff=cutoff)
    expected = w.clone()
    expected[:, :cutoff] = generator.w_avg + psi * (w[:, :cutoff] - generator.w_avg)
    torch.testing.assert_close(found, expected)


def test_at_psi_0_all_pictures_are_the_same():
    generator = make_generator()
    pictures = generator.synthesis(generator.mapping(torch.randn(3, 8), psi=0.0), noise="const")
    torch.testing.assert_close(pictures[0], pictures[1])
    mean = generator.synthesis(generator.w_avg[None], noise="const")
    torch.testing.assert_close(pictures[:1], mean)


def test_one_w_is_the_same_as_one_for_each_layer():
    generator, w = make_generator(), torch.randn(2, 8)
    expected = generator.synthesis(w[:, None].expand(-1, 6, -1), noise="const")
    torch.testing.assert_close(generator.synthesis(w, noise="const"), expected)


def test_w_avg_follows_w_in_training_mode_only():
    generator, z = make_generator(w_avg_beta=0.9), torch.randn(4, 8)
    before = generator.w_avg.clone()
    w = generator.mapping(z)[:, 0].detach()
    assert torch.equal(generator.w_avg, before)
    generator.train()
    generator.mapping(z)
    torch.testing.assert_close(generator.w_avg, 0.9 * before + 0.1 * w.mean(0))
    assert not generator.w_avg.requires_grad


# Noise


def test_noise_modes():
    generator, w = make_generator(), torch.randn(2, 8)
    modes = {mode: generator.synthesis(w, noise=mode) for mode in ("const", "none", "random")}
    assert torch.equal(modes["const"], generator.synthesis(w, noise="const"))
    assert torch.equal(modes["none"], generator.synthesis(w, noise="none"))
    assert not torch.equal(modes["random"], generator.synthesis(w, noise="random"))
    assert not torch.equal(modes["const"], modes["none"])
    # The same constant noise for every picture, another random one for each.
    same = w[:1].expand(2, -1)
    const, random = (generator.synthesis(same, noise=mode) for mode in ("const", "random"))
    torch.testing.assert_close(const[0], const[1])
    assert not torch.allclose(random[0], random[1], atol=1e-3)


def test_without_strength_noise_does_nothing():
    generator, w = Generator(resolution=(16, 16), **SMALL), torch.randn(2, 8)
    torch.testing.assert_close(generator.synthesis(w, noise="random"), generator.synthesis(w, noise="none"))


# Style mixing


def shares_of_mixed(generator, count):
    """Which pictures take which layers from another w than the first."""
    w = generator.styles(torch.randn(count, 8)).detach()
    return (w != w[:, :1]).any(2)


def test_style_mixing_has_its_share_and_a_crossover_anywhere():
    other = shares_of_mixed(make_generator(style_mixing=0.6), 4000)
    assert other.any(1).double().mean().item() == pytest.approx(0.6, abs=0.03)
    crossover = (~other[other.any(1)]).sum(1)
    assert set(crossover.tolist()) == set(range(1, 6))
    shares = torch.bincount(crossover, minlength=6)[1:].double() / len(crossover)
    torch.testing.assert_close(shares, torch.full((5,), 0.2).double(), atol=0.04, rtol=0)
    # From the crossover on all are of the other: no layer before one of the other's is its own.
    assert (other.long().diff(dim=1) >= 0).all()
    assert not shares_of_mixed(make_generator(style_mixing=0.0), 100).any()
    assert shares_of_mixed(make_generator(style_mixing=1.0), 100).any(1).all()


def test_styles_are_mixed_in_training_mode_only():
    generator, z = make_generator(style_mixing=1.0), torch.randn(4, 8)
    seen = []
    generator.blocks[0].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[2]))
    generator(z)
    generator.train()(z)
    mixed = [(w != w[:, :1]).any().item() for w in seen]
    assert mixed == [False, True]


# Conditions


def test_a_missing_or_wrong_condition_is_refused_with_its_length():
    generator, discriminator = make_generator(c_dim=5), make_discriminator(c_dim=5)
    z, image = torch.randn(2, 8), torch.randn(2, 3, 16, 16)
    for c, found in ((None, "none"), (torch.zeros(2, 4), "4"), (torch.zeros(2, 6), "6")):
        says = f"takes conditions of 5 numbers; found: {found}"
        with pytest.raises(ValueError, match=says):
            generator(z, c)
        with pytest.raises(ValueError, match=says):
            discriminator(image, c)


@pytest.mark.parametrize(
    "c",
    [
        torch.eye(3)[[0, 2]],
        torch.tensor([[1.0, 1, 0], [0, 1, 1]]),
        torch.tensor([[0.3, -1.2, 7], [0.1, 0, 2]]),
        torch.zeros(2, 3),
    ],
    ids=["classes", "several", "continuous", "none of all"],
)
def test_conditions_of_any_kind_change_the_picture_and_the_logit(c):
    generator, discriminator = make_generator(c_dim=3), make_discriminator(c_dim=3)
    z, image = torch.randn(2, 8), torch.randn(2, 3, 16, 16)
    for found, plain in (
        (generator(z, c), generator(z, c.flip(1) + 0.5)),
        (discriminator(image, c), discriminator(image, c.flip(1) + 0.5)),
    ):
        assert found.isfinite().all()
        assert not torch.allclose(found, plain)


def test_the_conditional_logit_is_the_projection_onto_the_mapped_condition():
    """Its length is that of the features over the square root of their number."""
    discriminator = make_discriminator(c_dim=3)
    c, image = torch.eye(3)[[0, 1, 2, 0]], torch.randn(4, 3, 16, 16)
    seen = []
    hook = discriminator.out.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = discriminator(image, c)
    hook.remove()
    directions = discriminator.map(None, c)
    assert seen[0].shape == directions.shape == (4, 8)
    torch.testing.assert_close(logits, (seen[0] * directions).sum(1) / math.sqrt(8))


def test_mixed_styles_share_the_condition():
    """Two latents of one picture have one class: with a mapping that looks at the class alone they agree."""
    generator = make_generator(c_dim=3, style_mixing=1.0)
    generator.map.layers[0].weight.data[:, :8] = 0  # what comes from z
    w = generator.styles(torch.randn(6, 8), torch.eye(3)[[0, 1, 2, 0, 1, 2]])
    torch.testing.assert_close(w, w[:, :1].expand_as(w))


# Penalties


def slope_along(penalty, network, direction, step=1e-6):
    """The derivative of a penalty along a direction of the parameters, by differences."""
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, part in zip(network.parameters(), direction, strict=True):
                parameter.add_(part, alpha=sign * step)
        values.append(penalty().item())
        with torch.no_grad():
            for parameter, part in zip(network.parameters(), direction, strict=True):
                parameter.add_(part, alpha=-sign * step)
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_path_lengths_gradient_is_that_of_differences(architecture):
    generator = make_generator(resolution=(12, 12), generator_architecture=architecture, c_dim=2).double()
    z, c = torch.randn(4, 8, dtype=torch.float64), torch.eye(2, dtype=torch.float64)[[0, 1, 0, 1]]
    # The mean counts as a constant, so here it stands still.
    rule = PathLength(decay=0.0, shrink=1).double()
    rule.mean.fill_(0.3)

    def penalty():
        torch.manual_seed(2)
        return rule(generator, z, c)

    gradient = torch.autograd.grad(penalty(), [*generator.parameters()], allow_unused=True)
    # But for the strengths of the noise, which is drawn in single precision: differences would be too coarse.
    direction = [torch.randn_like(parameter) * (parameter.ndim > 0) for parameter in generator.parameters()]
    expected = slope_along(penalty, generator, direction)
    found = sum((g * d).sum().item() for g, d in zip(gradient, direction, strict=True) if g is not None)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_r1s_gradient_is_that_of_differences(architecture):
    discriminator = make_discriminator(
        resolution=(12, 12), discriminator_architecture=architecture, c_dim=2, mbstd_group=1
    ).double()
    c = torch.eye(2, dtype=torch.float64)[[0, 1, 0, 1]]
    images = torch.randn(4, 3, 12, 12, dtype=torch.float64)

    def penalty():
        return R1(gamma=2.0)(lambda image: discriminator(image, c), images)

    gradient = torch.autograd.grad(penalty(), [*discriminator.parameters()], allow_unused=True)
    direction = [torch.randn_like(parameter) for parameter in discriminator.parameters()]
    expected = slope_along(penalty, discriminator, direction)
    found = sum((g * d).sum().item() for g, d in zip(gradient, direction, strict=True) if g is not None)
    assert found == pytest.approx(expected, rel=1e-5)


# Half precision


def test_pictures_and_logits_are_in_single_precision_and_close_in_bf16():
    generator, discriminator = make_generator(), make_discriminator()
    z, images = torch.randn(4, 8), torch.randn(4, 3, 16, 16)
    w = generator.mapping(z)
    exact = generator.synthesis(w, noise="const"), discriminator(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(generator.mapping(z), w)  # its digits are needed
        half = generator.synthesis(w, noise="const"), discriminator(images)
    for ours, theirs in zip(half, exact, strict=True):
        assert ours.dtype == torch.float32
        assert 0 < (ours - theirs).norm() / theirs.norm() < 0.05


def gradient(gan, kind, reals, *, half):
    """Of one of the four steps' losses, over all parameters of the network that it teaches."""
    torch.manual_seed(1)  # the same latents, noise and directions
    network = gan.generator if kind in ("generator", "path length") else gan.discriminator
    gan.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        if kind == "generator":
            value = gan.adversarial.generator(gan.critic(gan.generator(gan.latents(len(reals)))))
        elif kind == "discriminator":
            fakes = gan.critic(gan.fakes(len(reals)))
            value = gan.adversarial.discriminator(gan.critic(reals), fakes)
        elif kind == "r1":
            value = R1(gamma=1.0)(gan.critic, reals)
        else:
            value = PathLength()(gan.generator, gan.latents(len(reals)))
        gan.differentiate(value)
    return torch.cat([p.grad.flatten().double() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", ["generator", "discriminator", "r1", "path length"])
def test_gradients_in_bf16_point_the_way_of_those_in_fp32(kind):
    torch.manual_seed(1)
    gan = StyleGAN2ADA(resolution=32, channel_max=64, latent_dim=64, w_dim=64, batch_size=8)
    gan.manual_backward = lambda loss: loss.backward()
    reals = torch.rand(8, 3, 32, 32) * 2 - 1
    half, exact = (gradient(gan, kind, reals, half=half) for half in (True, False))
    assert torch.cosine_similarity(half, exact, dim=0) >= 0.995
    assert half.norm() / exact.norm() == pytest.approx(1, abs=0.05)


def test_a_batch_without_groups_is_refused():
    with pytest.raises(ValueError, match="7 pictures at a time"):
        StyleGAN2ADA(resolution=16, channel_base=64, channel_max=4, batch_size=7)
    StyleGAN2ADA(resolution=16, channel_base=64, channel_max=4, batch_size=7, mbstd_group=1)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="architecture 'resnt' is neither resnet nor skip"):
        is_residual("resnt", "skip")
