"""ProGAN as a LightningModule."""

import math
from typing import Literal

from torch import nn

from kaleidogan.models import progan
from kaleidogan.settings import (
    Channels,
    Count,
    Fraction,
    GrowFrom,
    NotNegative,
    Positive,
    Resolution,
    size_of,
)
from kaleidogan.training.gan import GAN
from kaleidogan.training.losses import R1, GradientPenalty, NonSaturating, Penalty, Wasserstein
from kaleidogan.training.modules.parts import build_network, check_groups, fast

BATCHES = {16: 128, 32: 64, 64: 32, 128: 16, 256: 8}
"""The published batch for one GPU, up to a side in pixels; 4 above."""


class ProGAN(GAN):
    """The progressive GAN (Karras et al. 2018); the defaults are the paper's for one GPU.

    Args:
        resolution: (height, width), from 16 to 2048; the depth follows from it.
        channels: 1 gray, 3 RGB, 4 RGBA.
        latent_dim: numbers in a latent.
        channel_base: channels of a block times its side.
        channel_max: of any block.
        mbstd_group: pictures that the minibatch deviation is found over.
        loss: wgan_gp, or non_saturating with R1.
        gradient_penalty: with wgan_gp, weight of the penalty between reals and fakes.
        drift: with wgan_gp, weight of the reals' squared logits.
        r1_gamma: with non_saturating, weight of the gradient penalty at real pictures, at all levels; nothing
            is published for it here.
        r1_every: with non_saturating, batches from one gradient penalty to the next.
        learning_rate: of both players' Adam; null: 0.0015 at 1024 px and above, else 0.001.
        betas: of both players' Adam.
        d_steps: discriminator steps, each on a batch of its own, for one generator step.
        ema_kimg: half-life of the averaged generator, in thousands of images; the published 0.999 a step is
            11 at a batch of 16.
        ema_rampup: the half-life is at most this share of the images seen.
        batch_size: images in a batch, over all GPUs; null: 128 up to 16 px, 64, 32, 16, 8 for each doubling,
            4 from 512 px on.
        kimg: length of the training, in thousands of images.
        accumulate: parts into which a batch is cut to save memory.
        grow_from: the shorter side of the pictures that training begins with; base: the smallest; null: it
            does not grow. Set by growth.start.
        augment: what the discriminator sees the pictures through; None: plain, as published.
    """

    def __init__(
        self,
        *,
        resolution: Resolution = 256,
        channels: Channels = 3,
        latent_dim: Count = 512,
        channel_base: Count = 16384,
        channel_max: Count = 512,
        mbstd_group: Count = 4,
        loss: Literal["wgan_gp", "non_saturating"] = "wgan_gp",
        gradient_penalty: Positive = 10.0,
        drift: NotNegative = 0.001,
        r1_gamma: NotNegative = 1.0,
        r1_every: Count = 16,
        learning_rate: Positive | None = None,
        betas: tuple[Fraction, Fraction] = (0.0, 0.99),
        d_steps: Count = 1,
        ema_kimg: Positive = 10.0,
        ema_rampup: Positive | None = 0.05,
        batch_size: Count | None = None,
        kimg: Positive = 12000.0,
        accumulate: Count = 1,
        grow_from: GrowFrom | None = None,
        augment: nn.Module | None = None,
    ) -> None:
        size = size_of(resolution)
        options = {**locals(), "resolution": size}
        discriminator = fast(build_network(progan.Discriminator, options))
        # Of squares of equal area.
        sides = [round(math.sqrt(h * w)) for h, w in discriminator.stage.sizes]  # type: ignore[union-attr]
        batches = [published_batch(side) if batch_size is None else batch_size for side in sides]
        rates = [published_rate(side) if learning_rate is None else learning_rate for side in sides]
        batch_size, learning_rate = batches[-1], rates[-1]
        check_groups(min(batches) // accumulate, mbstd_group)
        penalties: dict[str, Penalty] = {}
        if loss == "wgan_gp":
            penalties["penalty/gradient"] = GradientPenalty(gradient_penalty)
        elif r1_gamma > 0:
            penalties["penalty/r1"] = R1(r1_gamma, r1_every)
        super().__init__(
            generator=fast(build_network(progan.Generator, options)),
            discriminator=discriminator,
            loss=Wasserstein(drift) if loss == "wgan_gp" else NonSaturating(),
            penalties=penalties,
            half_penalties=True,
            augment=augment if augment is not None else nn.Identity(),
            learning_rate=learning_rate,
            betas=betas,
            d_steps=d_steps,
            accumulate=accumulate,
            ema_kimg=ema_kimg,
            ema_rampup=ema_rampup,
            view=discriminator.stage.view,  # type: ignore[union-attr, arg-type]
        )
        self.level_batches, self.level_rates = batches, rates
        self.save_hyperparameters(ignore=["augment"], logger=False)


def published_batch(side: int) -> int:
    """Images in a batch for pictures with this side."""
    return next((batch for largest, batch in BATCHES.items() if side <= largest), 4)


def published_rate(side: int) -> float:
    """The learning rate for pictures with this side."""
    return 0.0015 if side >= 1024 else 0.001
