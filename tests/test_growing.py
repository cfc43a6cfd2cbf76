"""Networks that grow: levels, the fade, and that a new level begins where the one below ended."""

import copy

import pytest
import torch
from torch import nn

from kaleidogan.models import dcgan, progan
from kaleidogan.models.growing import Stage, double, halve, levels
from kaleidogan.sampling import build_generator

SMALL = {"channel_base": 128, "channel_max": 8}
KINDS = {
    "progan": (progan, {"channel_base": 128, "channel_max": 8}, {"channel_base": 128, "channel_max": 8}),
    "dcgan": (dcgan, {"width": 2}, {"width": 2}),
    "dcgan_without_norm": (dcgan, {"width": 2}, {"width": 2, "discriminator_norm": "none"}),
}
OUTERMOST = ("to_picture.", "from_picture.", "early.")
"""What makes and takes the picture of a level."""
SHAPES = [
    *(("progan", (32, 32), start) for start in ("base", 4, 8, 16)),
    ("progan", (48, 32), "base"),
    ("progan", (24, 16), 8),
    *((kind, (64, 64), start) for kind in ("dcgan", "dcgan_without_norm") for start in ("base", 32)),
    *((kind, (48, 32), 16) for kind in ("dcgan", "dcgan_without_norm")),
    ("dcgan", (96, 48), "base"),
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)  # a second one has little to do here but to wait


def pair(kind: str, resolution=(32, 32), start="base", channels=3):
    """A generator and a discriminator."""
    torch.manual_seed(0)
    models, generator, discriminator = KINDS[kind]
    shared = {"resolution": resolution, "channels": channels, "grow_from": start}
    return (
        models.Generator(latent_dim=5, **generator, **shared),
        models.Discriminator(**discriminator, **shared),
    )


def stand(level: int, alpha: float, *networks: nn.Module) -> None:
    for network in networks:
        network.stage.level, network.stage.alpha = level, alpha


# Halving and doubling


def test_halving_is_the_mean_and_doubling_repeats():
    x = torch.arange(8.0).view(1, 1, 2, 4)
    assert halve(x).flatten().tolist() == [2.5, 4.5]
    assert double(x)[0, 0].tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 2 + [[4, 4, 5, 5, 6, 6, 7, 7]] * 2
    assert torch.equal(halve(double(x)), x)


def test_halving_is_a_quarter_of_doublings_adjoint():
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 6, 4).double(), torch.randn(2, 3, 3, 2).double()
    torch.testing.assert_close((halve(x) * y).sum(), (x * double(y)).sum() / 4)


@pytest.mark.parametrize("change", [halve, double])
def test_gradients_of_halving_and_doubling_are_finite_differences_twice_over(change):
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(change, x)
    assert torch.autograd.gradgradcheck(lambda x: change(x) ** 3, x)


# Levels and the stage

SIZES = [(6, 4), (12, 8), (24, 16)]


def test_levels_begin_where_they_are_asked_to():
    assert levels(SIZES, None) == [(24, 16)]
    assert levels(SIZES, "base") == levels(SIZES, 4) == SIZES
    assert levels(SIZES, 8) == SIZES[1:]
    assert levels(SIZES, 16) == SIZES[2:]


@pytest.mark.parametrize("start", [1, 5, 6, 24, 32])
def test_a_start_that_is_no_level_is_answered_with_those_there_are(start):
    with pytest.raises(ValueError, match=f"growth.start={start}: pictures of 16 px grow through 4, 8, 16 px"):
        levels(SIZES, start)


def test_dcgan_grows_from_two_stages_up():
    assert dcgan.level_sizes((64, 64)) == [(16, 16), (32, 32), (64, 64)]
    assert dcgan.level_sizes((48, 32)) == [(24, 16), (48, 32)]
    with pytest.raises(ValueError, match=r"growth\.start=8: pictures of 64 px grow through 16, 32, 64 px"):
        pair("dcgan", (64, 64), 8)


def test_reals_are_shrunk_by_averaging_and_faded():
    torch.manual_seed(0)
    image, stage = torch.randn(2, 3, 24, 16), Stage(SIZES)
    means = image.view(2, 3, 6, 4, 4, 4).mean((3, 5))
    assert stage.size == (6, 4)
    torch.testing.assert_close(stage.view(image), means)
    stage.level, stage.alpha = 1, 0.25
    fine = image.view(2, 3, 12, 2, 8, 2).mean((3, 5))
    coarse = means.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(stage.view(image), 0.75 * coarse + 0.25 * fine)
    stage.alpha = 1.0
    torch.testing.assert_close(stage.view(image), fine)
    stage.level = 2
    assert stage.view(image) is image


def test_the_first_level_never_fades():
    stage = Stage(SIZES)
    stage.alpha = 0.5
    assert not stage.is_fading


# Fading in


@pytest.mark.parametrize(("kind", "resolution", "start"), SHAPES)
def test_each_level_begins_as_the_one_below_and_ends_alone(kind, resolution, start):
    channels = 1 if start == "base" else 4
    generator, discriminator = pair(kind, resolution, start, channels)
    sizes = generator.stage.sizes
    assert sizes == discriminator.stage.sizes
    assert sizes[-1] == resolution
    z = torch.randn(4, 5)
    for level in range(1, len(sizes)):
        image = torch.randn(4, channels, *sizes[level])
        with torch.no_grad():
            stand(level - 1, 1.0, generator, discriminator)
            below, logits_below = generator(z), discriminator(halve(image))
            assert below.shape == (4, channels, *sizes[level - 1])
            stand(level, 0.0, generator, discriminator)
            torch.testing.assert_close(generator(z), double(below), atol=1e-6, rtol=0)
            torch.testing.assert_close(discriminator(image), logits_below, atol=1e-6, rtol=0)
            stand(level, 1.0, generator, discriminator)
            grown, logits = generator(z), discriminator(image)
            assert grown.shape == (4, channels, *sizes[level])
            assert not torch.allclose(logits, logits_below)
            stand(level, 0.3, generator)
            torch.testing.assert_close(generator(z), 0.7 * double(below) + 0.3 * grown)
            stand(level, 1.0, generator)
            for name, parameter in (*generator.named_parameters(), *discriminator.named_parameters()):
                if name.startswith(OUTERMOST) and f".{min(sizes[level - 1])}." in name:
                    parameter.normal_()
            assert torch.equal(generator(z), grown)
            assert torch.equal(discriminator(image), logits)


@pytest.mark.parametrize("kind", KINDS)
def test_grown_networks_are_those_that_never_grew(kind):
    for network, plain, shape in zip(
        pair(kind, (64, 64), "base", 4), pair(kind, (64, 64), None, 4), [(4, 5), (4, 4, 64, 64)], strict=True
    ):
        state = network.state_dict()
        last = len(network.stage.sizes) - 1
        stand(last, 1.0, network)
        theirs = {key: state[key] for key in plain.state_dict()}
        theirs["stage._extra_state"] = {"level": 0, "alpha": 1.0}
        plain.load_state_dict(theirs)
        x = torch.randn(shape)
        torch.testing.assert_close(network(x), plain(x))


# Gradients


def names(network: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in network.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize("start", ["base", 8])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_of_progan_what_is_present_learns_and_nothing_else(start, alpha):
    for level in range(4 if start == "base" else 3):
        generator, discriminator = pair("progan", (32, 32), start)
        stand(level, alpha, generator, discriminator)
        blocks = range(level if start == "base" else level + 1)
        sides = [4 * 2**number for number in blocks] + [4 * 2 ** len(blocks)]
        shown = sides[-2:] if level and alpha < 1 else sides[-1:]
        to_picture = [f"to_picture.{side}." for side in shown]
        from_picture = [f"from_picture.{side}." for side in shown]
        up = [f"blocks.{number}." for number in blocks]
        down = [f"blocks_from_base.{number}." for number in blocks]
        assert trained(generator, discriminator) == (
            names(generator, "dense.", "conv.", *up, *to_picture),
            names(discriminator, "dense.", "conv.", "out.", *down, *from_picture),
        )


@pytest.mark.parametrize(
    ("kind", "first", "each"), [("dcgan", [8, 5, 2, 0], 3), ("dcgan_without_norm", [6, 4, 2, 0], 2)]
)
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_of_dcgan_what_is_present_learns_and_nothing_else(kind, first, each, alpha):
    for level in range(3):
        generator, discriminator = pair(kind, (64, 64))
        stand(level, alpha, generator, discriminator)
        fades = level > 0 and alpha < 1
        inner = [f"layers.{number}." for number in range(6 + 3 * level)]
        last = ["layers.12."] if level == 2 else [f"early.{16 << level}."]
        below = [f"early.{8 << level}."] if fades else []
        rest = [f"layers.{number}." for number in range(first[level], 3 + 4 * each)]
        begin = ["layers.0."] if level == 2 else last
        assert trained(generator, discriminator) == (
            names(generator, *inner, *last, *below),
            names(discriminator, *rest, *begin, *below),
        )


def trained(generator: nn.Module, discriminator: nn.Module) -> tuple[set[str], set[str]]:
    """The parameters of each that a step would move."""
    discriminator(generator(torch.randn(4, 5))).square().sum().backward()
    found = [
        {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        for net in (generator, discriminator)
    ]
    for network, moved in zip((generator, discriminator), found, strict=True):
        assert moved == {name for name, p in network.named_parameters() if p.grad is not None}
    return found[0], found[1]


# The state


@pytest.mark.parametrize("kind", KINDS)
def test_level_and_alpha_are_saved_with_the_network(kind):
    generator, _ = pair(kind, (64, 64))
    stand(1, 0.3, generator)
    again, _ = pair(kind, (64, 64))
    again.load_state_dict(copy.deepcopy(generator.state_dict()))
    assert (again.stage.level, again.stage.alpha) == (1, 0.3)
    z = torch.randn(2, 5)
    assert torch.equal(again.eval()(z), generator.eval()(z))
    twin = copy.deepcopy(generator)
    stand(2, 1.0, twin)
    assert generator.stage.level == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_from_before_networks_could_grow_is_one_of_the_last_level(kind):
    for network in pair(kind, (64, 64), None):
        state = {key: value for key, value in network.state_dict().items() if "stage." not in key}
        network.load_state_dict(state)
        assert network.stage.size == (64, 64)
        assert network.stage.alpha == 1.0


@pytest.mark.parametrize(("name", "size"), [("progan", (4, 4)), ("dcgan", (16, 16))])
def test_a_generator_is_rebuilt_with_its_levels(name, size):
    options = {"resolution": 32, "grow_from": "base", "width": 2, **SMALL}
    generator = build_generator(f"kaleidogan.models.{name}.Generator", options)
    assert generator.stage.size == size
    assert generator.image_shape == (3, 32, 32)
