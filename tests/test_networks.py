"""What every model must do: tested the moment its YAML is there."""

import copy

import pytest
import torch

from conftest import small as small_settings
from kaleidogan.commandline import options_of
from kaleidogan.config import build
from kaleidogan.sampling import build_generator, latents, synthesize
from test_configs import composed

MODELS = options_of("model")


def small(model: str, **options):
    overrides = [f"++{o}" for o in ("resolution=16", *small_settings(model))]
    overrides += [f"++model.{key}={value}" for key, value in options.items()]
    torch.manual_seed(0)
    return build(composed("train", f"model={model}", *overrides)["model"])


@pytest.mark.parametrize("model", MODELS)
def test_a_generator_keeps_the_contract(model):
    generator = small(model).average
    z = torch.randn(3, generator.latent_dim)
    w = generator.mapping(z, psi=0.7)
    image = generator.synthesis(w, noise="none")
    assert image.shape == (3, *generator.image_shape)
    torch.testing.assert_close(generator(z), generator.synthesis(generator.mapping(z)))
    assert torch.isfinite(image).all()


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_gets_a_gradient(model):
    gan = small(model)
    z = torch.randn(4, gan.generator.latent_dim)
    gan.discriminator(gan.generator(z)).sum().backward()
    for network in (gan.generator, gan.discriminator):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_networks_are_finite_in_bf16(model):
    gan = small(model)
    with torch.autocast("cpu", torch.bfloat16):
        logits = gan.discriminator(gan.generator(torch.randn(4, gan.generator.latent_dim)))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("model", MODELS)
def test_a_generator_is_rebuilt_from_its_options(model):
    gan = small(model)
    name = f"{type(gan.generator).__module__}.{type(gan.generator).__qualname__}"
    again = build_generator(name, dict(gan.hparams))
    again.load_state_dict(gan.generator.state_dict())
    z = torch.randn(2, gan.generator.latent_dim)
    torch.testing.assert_close(again.eval()(z), copy.deepcopy(gan.generator).eval()(z))


@pytest.mark.parametrize("model", MODELS)
def test_a_seeds_picture_is_the_same_beside_any_others(model):
    generator = small(model).average
    alone = next(synthesize(generator, latents([17], generator.latent_dim)))
    for seeds in (range(40), [3, 17], [17] * 16):
        z = latents(list(seeds), generator.latent_dim)
        beside = list(synthesize(generator, z))[list(seeds).index(17)]
        assert torch.equal(alone, beside)
