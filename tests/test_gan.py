"""The game, played by hand without a trainer where that is enough."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from kaleidogan.training.gan import GAN, frozen
from kaleidogan.training.losses import R1, GradientPenalty, NonSaturating, Wasserstein
from kaleidogan.training.modules import DCGAN, StyleGAN2ADA


class Point(nn.Module):
    """A generator of one-pixel pictures: its parameter plus its latent."""

    latent_dim = 1
    image_shape = (1, 1, 1)

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, z, c=None):
        return (self.place + 0 * z)[:, :, None, None]


class Slope(nn.Module):
    """A linear discriminator."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.3, dtype=torch.float64))

    def forward(self, image, c=None):
        return (image * self.weight).flatten()


def game(**options) -> GAN:
    torch.manual_seed(0)
    defaults = {
        "generator": Point(),
        "discriminator": Slope(),
        "loss": NonSaturating(),
        "penalties": {},
        "augment": nn.Identity(),
        "learning_rate": 0.1,
        "betas": (0.0, 0.99),
        "d_steps": 1,
        "accumulate": 1,
        "ema_kimg": 1.0,
        "ema_rampup": None,
    }
    gan = GAN(**{**defaults, **options})
    play_alone(gan)
    return gan


def play_alone(gan: GAN) -> None:
    """Give a model what it needs of a trainer."""
    optimizers = gan.configure_optimizers()
    gan.optimizers = lambda: optimizers
    gan.manual_backward = lambda loss: loss.backward()
    gan._trainer = type("Alone", (), {"world_size": 1})()


def reals(count=4):
    return torch.ones(count, 1, 1, 1, dtype=torch.float64)


def test_each_player_moves_the_way_that_its_loss_falls():
    gan = game()
    gan.training_step({"image": reals()}, 0)
    assert gan.discriminator.weight.item() > 0.3  # reals at 1 look more real than fakes at 0
    assert gan.generator.place.item() > 0  # so the fakes go towards the reals


def test_the_generators_step_leaves_no_gradient_on_the_discriminator():
    gan = game()
    _, discriminator_optimizer = gan.optimizers()
    discriminator_optimizer.zero_grad()
    gan.generator_step([(reals(), None)], gan.optimizers()[0])
    assert gan.discriminator.weight.grad is None
    assert gan.discriminator.weight.requires_grad


def test_gradients_do_not_depend_on_accumulation():
    whole, parts = game(), game(accumulate=4)
    images = torch.randn(8, 1, 1, 1, dtype=torch.float64)
    for gan in (whole, parts):
        gan.discriminator_step(gan.split({"image": images}), gan.optimizers()[1])
    torch.testing.assert_close(whole.discriminator.weight.grad, parts.discriminator.weight.grad)


def test_a_lazy_penalty_weighs_as_much_as_it_is_rare():
    gan = game(penalties={"penalty/r1": R1(gamma=2.0, every=16)})
    optimizer = gan.optimizers()[1]
    value = gan.penalty_step(gan.penalties["penalty/r1"], [(reals(), None)], optimizer)
    assert value.item() == pytest.approx(0.3**2)
    assert gan.discriminator.weight.grad.item() == pytest.approx(16 * 2 * 0.3)


def test_penalties_that_are_due_each_time_join_the_step():
    """At a slope of 0.3: 0.3 - 1 of the loss, 2 * 0.3 of R1 and 20 * (0.3 - 1) of the gradient penalty."""
    penalties = {"penalty/r1": R1(gamma=2.0, every=1), "penalty/gradient": GradientPenalty(10.0)}
    for accumulate in (1, 2):
        gan = game(loss=Wasserstein(drift=0.0), penalties=penalties, accumulate=accumulate)
        optimizer, steps = gan.optimizers()[1], []
        optimizer.register_step_post_hook(lambda *step, steps=steps: steps.append(step))
        scalars = gan.training_step({"image": reals()}, 0)
        assert len(steps) == 1
        assert scalars["penalty/r1"].item() == pytest.approx(0.3**2)
        assert scalars["penalty/gradient"].item() == pytest.approx(10 * 0.7**2)
        assert scalars["loss/discriminator"].item() == pytest.approx(-0.3)
        assert gan.discriminator.weight.grad.item() == pytest.approx(-1 + 2 * 0.3 - 20 * 0.7)
        assert optimizer.param_groups[0]["lr"] == 0.1
        assert optimizer.param_groups[0]["betas"] == (0.0, 0.99)


def test_a_joined_penalty_looks_at_the_fakes_that_the_step_has_made():
    gan = game(loss=Wasserstein(), penalties={"penalty/gradient": GradientPenalty(10.0)})
    make, made = gan.generator.forward, []
    gan.generator.forward = lambda *given: made.append(given) or make(*given)
    gan.discriminator_step([(reals(), None)], gan.optimizers()[1])
    assert len(made) == 1


def test_a_penalty_is_due_every_so_many_batches():
    gan = game(penalties={"penalty/r1": R1(gamma=2.0, every=3)})
    due = ["penalty/r1" in gan.training_step({"image": reals()}, 0) for _ in range(7)]
    assert due == [True, False, False, True, False, False, True]


def test_the_generator_plays_once_in_d_steps_batches():
    gan = game(d_steps=3)
    played = ["loss/generator" in gan.training_step({"image": reals()}, 0) for _ in range(6)]
    assert played == [False, False, True, False, False, True]


def test_adams_rates_allow_for_lazy_penalties():
    generator, discriminator = game(penalties={"penalty/r1": R1(1.0, every=16)}).optimizers()
    assert generator.param_groups[0]["lr"] == 0.1
    assert discriminator.param_groups[0]["lr"] == pytest.approx(0.1 * 16 / 17)
    assert discriminator.param_groups[0]["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_the_average_follows_the_generator():
    gan = game(ema_kimg=0.004)
    gan.training_step({"image": reals(4)}, 0)
    assert gan.images_seen == 4
    assert gan.average.place.item() == pytest.approx(gan.generator.place.item() / 2)  # one half-life
    assert gan.average.place.item() > 0


@pytest.mark.parametrize("loss", [NonSaturating(), Wasserstein()])
def test_separation_counts_pairs_that_are_told_apart(loss):
    """Fakes at 0, of the reals one half at 1, a quarter at 0 and a quarter at -1: 2/4 - 1/4."""
    pictures = torch.tensor([1.0, 1.0, 0.0, -1.0], dtype=torch.float64)[:, None, None, None]
    scalars = game(loss=loss).training_step({"image": pictures}, 0)
    assert scalars["logit/separation"].item() == pytest.approx(0.25)


def test_signs_of_a_wasserstein_critic_count_from_half_way_between_the_means():
    gan = game(loss=Wasserstein())
    gan.discriminator.register_forward_hook(lambda critic, given, logits: logits + 5)  # 0 is nowhere special
    scalars = gan.training_step({"image": reals()}, 0)
    assert scalars["logit/sign"].item() == 1  # 5.3 against 5
    assert game(loss=Wasserstein()).training_step({"image": -reals()}, 0)["logit/sign"].item() == -1


def test_the_critic_sees_everything_through_the_augmentation():
    class Black(nn.Module):
        def forward(self, image):
            return 0 * image

    gan = game(augment=Black())
    scalars = gan.training_step({"image": reals()}, 0)
    assert scalars["logit/real"] == scalars["logit/fake"] == 0


def test_frozen_gives_the_parameters_back_after_an_error():
    network = Slope()
    with pytest.raises(RuntimeError, match="broke off"), frozen(network):
        raise RuntimeError("broke off" if not network.weight.requires_grad else "was not frozen")
    assert network.weight.requires_grad


def test_a_module_works_without_hydra_and_is_read_back(train):
    gan = DCGAN(resolution=16, width=4)
    assert gan(torch.randn(2, 100)).shape == (2, 3, 16, 16)
    path = train() / "checkpoints" / "last.ckpt"
    back = DCGAN.load_from_checkpoint(path)
    assert back.images_seen == 48
    assert back.hparams.width == 4
    assert back.average.latent_dim == 8


def test_a_module_that_was_trained_with_ada_is_read_back_without(train):
    path = train(model="stylegan2_ada") / "checkpoints" / "last.ckpt"
    back = StyleGAN2ADA.load_from_checkpoint(path)
    assert back.images_seen == 48
    assert back.hparams.r1_gamma == pytest.approx(0.0002 * 16 * 16 / 8)


# The type checks that the tests run under cannot be compiled, so it has a process of its own.
COMPILED = """
import copy, torch
from kaleidogan.training.modules import StyleGAN2ADA

torch.manual_seed(0)
options = {"resolution": 16, "channel_base": 64, "channel_max": 4, "latent_dim": 4, "w_dim": 4}
plain = StyleGAN2ADA(**options, batch_size=4, r1_every=1, path_length_every=1)
compiled = StyleGAN2ADA(**options, batch_size=4, r1_every=1, path_length_every=1)
compiled.load_state_dict(copy.deepcopy(plain.state_dict()))
compiled.compile_passes(backend="aot_eager")
for gan in (plain, compiled):
    optimizers = gan.configure_optimizers()
    gan.optimizers = lambda optimizers=optimizers: optimizers
    gan.manual_backward = lambda loss: loss.backward()
    gan._trainer = type("Alone", (), {"world_size": 1})()
    torch.manual_seed(1)
    gan.training_step({"image": torch.rand(4, 3, 16, 16)}, 0)
for (key, one), other in zip(plain.named_parameters(), compiled.parameters(), strict=True):
    torch.testing.assert_close(one, other, msg=key)
assert plain.state_dict().keys() == compiled.state_dict().keys()
"""


@pytest.mark.slow
def test_compiled_passes_play_the_same_game():
    subprocess.run([sys.executable, "-c", COMPILED], check=True)
