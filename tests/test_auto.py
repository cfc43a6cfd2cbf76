"""The numbers of the `auto` configuration against those that are published."""

from dataclasses import asdict

import pytest

from kaleidogan.training.auto import resolve
from kaleidogan.training.modules import StyleGAN2ADA

GPUS = (1, 2, 4, 8)
PUBLISHED = {
    # side: batches, gammas, EMA half-lives in kimg; each for 1, 2, 4 and 8 GPUs; learning rate, channel base
    64: ((32, 64, 64, 64), (0.0256, 0.0128, 0.0128, 0.0128), (10, 20, 20, 20), 0.0025, 16384),
    128: ((32, 64, 64, 64), (0.1024, 0.0512, 0.0512, 0.0512), (10, 20, 20, 20), 0.0025, 16384),
    256: ((16, 32, 64, 64), (0.8192, 0.4096, 0.2048, 0.2048), (5, 10, 20, 20), 0.0025, 16384),
    512: ((8, 16, 32, 64), (6.5536, 3.2768, 1.6384, 0.8192), (2.5, 5, 10, 20), 0.0025, 32768),
    1024: ((4, 8, 16, 32), (52.4288, 26.2144, 13.1072, 6.5536), (1.25, 2.5, 5, 10), 0.002, 32768),
}


@pytest.mark.parametrize("side", PUBLISHED)
@pytest.mark.parametrize("number", range(4), ids=[f"{gpus} GPUs" for gpus in GPUS])
def test_published_numbers(side, number):
    batches, gammas, half_lives, learning_rate, channel_base = PUBLISHED[side]
    assert asdict(resolve((side, side), GPUS[number])) == pytest.approx(
        {
            "batch_size": batches[number],
            "mbstd_group": 4,
            "channel_base": channel_base,
            "learning_rate": learning_rate,
            "r1_gamma": gammas[number],
            "ema_kimg": half_lives[number],
        }
    )


def test_a_batch_of_ones_own_changes_what_follows_from_it():
    small, published = resolve((64, 64), batch_size=8), resolve((64, 64))
    assert (small.batch_size, small.ema_kimg) == (8, 2.5)
    assert small.r1_gamma == pytest.approx(published.r1_gamma * 4)
    assert (small.channel_base, small.learning_rate) == (published.channel_base, published.learning_rate)
    assert resolve((64, 64), batch_size=2).mbstd_group == 2
    assert resolve((64, 64), gpus=4, batch_size=8).mbstd_group == 2  # of those on one GPU
    assert resolve((64, 64), gpus=8, batch_size=4).mbstd_group == 1


def test_a_picture_that_is_not_square_counts_as_a_square_of_its_area():
    wide, square = resolve((128, 512)), resolve((256, 256))
    assert wide == square


@pytest.mark.parametrize("side", [12, 48, 96, 160, 176, 192, 320, 352, 384, 640, 704, 768, 1536, 2048])
def test_the_batch_of_any_size_can_be_cut_into_groups(side):
    """Else the minibatch deviation would be found over fewer pictures, or over one, where it is nothing."""
    numbers = resolve((side, side))
    assert numbers.batch_size % numbers.mbstd_group == 0
    assert numbers.mbstd_group >= 2


def test_the_model_takes_them_and_keeps_them():
    gan = StyleGAN2ADA(resolution=32, channel_max=8, w_dim=8, latent_dim=8)
    expected = {
        "batch_size": 32,
        "channel_base": 16384,
        "learning_rate": 0.0025,
        "r1_gamma": pytest.approx(0.0064),
        "ema_kimg": 10,
        "mbstd_group": 4,
    }
    assert {key: gan.hparams[key] for key in expected} == expected
    assert gan.penalties["penalty/r1"].gamma == gan.hparams.r1_gamma
    assert gan.discriminator.mbstd_group == 4
    generator, discriminator = gan.configure_optimizers()
    assert generator.defaults["lr"] == pytest.approx(0.0025 * 4 / 5)
    assert discriminator.defaults["lr"] == pytest.approx(0.0025 * 16 / 17)
    assert generator.defaults["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
    assert discriminator.defaults["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_a_number_that_is_given_stays():
    gan = StyleGAN2ADA(
        resolution=32,
        channel_max=8,
        w_dim=8,
        latent_dim=8,
        r1_gamma=0.0,
        path_length_weight=0.0,
        learning_rate=1e-3,
        ema_kimg=3.0,
        mbstd_group=2,
    )
    assert gan.penalties == {}
    assert len(gan.generator_penalties) == 0
    assert [optimizer.defaults["lr"] for optimizer in gan.configure_optimizers()] == [1e-3, 1e-3]
    assert (gan.ema_kimg, gan.discriminator.mbstd_group) == (3.0, 2)
