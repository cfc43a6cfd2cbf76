"""DCGAN as a LightningModule."""

from typing import Literal

from torch import nn

from kaleidogan.models import dcgan
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
from kaleidogan.training.losses import BCE, R1, NonSaturating
from kaleidogan.training.modules.parts import build_network, fast


class DCGAN(GAN):
    """DCGAN (Radford, Metz and Chintala 2016); the defaults are the paper's.

    Args:
        resolution: (height, width), from 16 to 512; the depth follows from it.
        channels: 1 gray, 3 RGB, 4 RGBA.
        latent_dim: numbers in a latent.
        width: channels next to the picture, in both networks; doubles inwards, up to 8 times as many.
        discriminator_norm: batch normalisation in the discriminator, or none.
        loss: bce and non_saturating are the same at label_smoothing 0.
        label_smoothing: with bce, how far below 1 the label of real pictures lies.
        learning_rate: of both players' Adam.
        betas: of both players' Adam.
        d_steps: discriminator steps, each on a batch of its own, for one generator step.
        r1_gamma: weight of the gradient penalty at real pictures; 0: none, as published.
        r1_every: batches from one gradient penalty to the next.
        ema_kimg: half-life of the averaged generator, in thousands of images.
        ema_rampup: the half-life is at most this share of the images seen.
        batch_size: images in a batch, over all GPUs.
        kimg: length of the training, in thousands of images; 3000 is once through LSUN's bedrooms.
        accumulate: parts into which a batch is cut to save memory.
        grow_from: the shorter side of the pictures that training begins with; base: the smallest; null: it
            does not grow. Set by growth.start.
        augment: what the discriminator sees the pictures through; None: plain.
    """

    def __init__(
        self,
        *,
        resolution: Resolution = 64,
        channels: Channels = 3,
        latent_dim: Count = 100,
        width: Count = 64,
        discriminator_norm: Literal["batch", "none"] = "batch",
        loss: Literal["bce", "non_saturating"] = "bce",
        label_smoothing: Fraction = 0.0,
        learning_rate: Positive = 2e-4,
        betas: tuple[Fraction, Fraction] = (0.5, 0.999),
        d_steps: Count = 1,
        r1_gamma: NotNegative = 0.0,
        r1_every: Count = 16,
        ema_kimg: Positive = 10.0,
        ema_rampup: Positive | None = 0.05,
        batch_size: Count = 128,
        kimg: Positive = 3000.0,
        accumulate: Count = 1,
        grow_from: GrowFrom | None = None,
        augment: nn.Module | None = None,
    ) -> None:
        options = {**locals(), "resolution": size_of(resolution)}
        super().__init__(
            generator=fast(build_network(dcgan.Generator, options)),
            discriminator=(discriminator := fast(build_network(dcgan.Discriminator, options))),
            loss=BCE(real_label=1 - label_smoothing) if loss == "bce" else NonSaturating(),
            penalties={"penalty/r1": R1(r1_gamma, r1_every)} if r1_gamma > 0 else {},
            augment=augment if augment is not None else nn.Identity(),
            learning_rate=learning_rate,
            betas=betas,
            d_steps=d_steps,
            accumulate=accumulate,
            ema_kimg=ema_kimg,
            ema_rampup=ema_rampup,
            view=discriminator.stage.view,  # type: ignore[union-attr, arg-type]
        )
        self.save_hyperparameters(ignore=["augment"], logger=False)
