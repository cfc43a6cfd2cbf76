"""SWAGAN as a LightningModule."""

from typing import Literal

from torch import nn

from kaleidogan.models import swagan
from kaleidogan.settings import (
    Channels,
    Count,
    CountOrZero,
    Fraction,
    NotNegative,
    Positive,
    Resolution,
    size_of,
)
from kaleidogan.training import auto
from kaleidogan.training.gan import GAN
from kaleidogan.training.losses import R1, NonSaturating, PathLength
from kaleidogan.training.modules.parts import before_discriminator, build_network, check_groups, fast, freeze


class SWAGAN(GAN):
    """SWAGAN (Gal et al. 2021): StyleGAN2 over Haar wavelets, trained as StyleGAN2-ADA is.

    What is null follows from the resolution, the batch and `gpus` as for StyleGAN2-ADA, see `auto.py`, but
    for R1's weight: the networks see a quarter of the pixels, and it is a quarter.

    Args:
        resolution: (height, width), from 16 to 2048; the depth follows from it.
        channels: 1 gray, 3 RGB, 4 RGBA.
        latent_dim: numbers in a latent.
        w_dim: numbers in a style.
        c_dim: numbers in a condition; with classes, their count. 0: the labels are not looked at.
        mapping_layers: from latent to style.
        channel_base: channels of a block times its side; published 32768; null: half of that below 512 px.
        channel_max: of any block.
        variant: port: 1x1 convolutions make the sub-bands and 3x3 read them, the last stage is the base;
            paper: the other way round, the last stage is half the base.
        upsampling: of the sub-bands between blocks: bilinear, or neural: a learnt 1x1 convolution.
        mbstd_group: pictures that the minibatch deviation is found over; null: 4, or all there are.
        style_mixing: share of the pictures that two latents make.
        learning_rate: of both players' Adam.
        betas: of both players' Adam.
        r1_gamma: weight of the gradient penalty at real pictures; null: 0.00005 * height * width / batch.
        r1_every: batches from one gradient penalty to the next.
        path_length_weight: of the path length penalty; 0: none.
        path_length_every: batches from one path length penalty to the next.
        path_length_shrink: by how much smaller the batch of a path length penalty is.
        blur_sigma: the discriminator sees pictures blurred by so many pixels at first; 0: it does not.
        blur_fade_kimg: thousands of images until the blur is gone; null: 200 for each 32 of a batch.
        freeze_layers: layers of the discriminator, from the picture inwards, that keep their weights.
        ema_kimg: half-life of the averaged generator, in thousands of images; null: 10 for a batch of 32.
        ema_rampup: the half-life is at most this share of the images seen; null: no limit.
        batch_size: images in a batch, over all GPUs; null: 32, fewer from 256 px on, more with more GPUs.
        gpus: that the published numbers are taken for.
        kimg: length of the training, in thousands of images; 5000 is fair already, 1000 from `init_from`.
        accumulate: parts into which a batch is cut to save memory.
        augment: what the discriminator sees the pictures through; None: plain, as published.
    """

    def __init__(
        self,
        *,
        resolution: Resolution = 256,
        channels: Channels = 3,
        latent_dim: Count = 512,
        w_dim: Count = 512,
        c_dim: CountOrZero = 0,
        mapping_layers: Count = 8,
        channel_base: Count | None = None,
        channel_max: Count = 512,
        variant: Literal["paper", "port"] = "port",
        upsampling: Literal["bilinear", "neural"] = "bilinear",
        mbstd_group: Count | None = None,
        style_mixing: Fraction = 0.9,
        learning_rate: Positive = 0.002,
        betas: tuple[Fraction, Fraction] = (0.0, 0.99),
        r1_gamma: NotNegative | None = None,
        r1_every: Count = 16,
        path_length_weight: NotNegative = 2.0,
        path_length_every: Count = 4,
        path_length_shrink: Count = 2,
        blur_sigma: NotNegative = 0.0,
        blur_fade_kimg: Positive | None = None,
        freeze_layers: CountOrZero = 0,
        ema_kimg: Positive | None = None,
        ema_rampup: Positive | None = 0.05,
        batch_size: Count | None = None,
        gpus: Count = 1,
        kimg: Positive = 25000.0,
        accumulate: Count = 1,
        augment: nn.Module | None = None,
    ) -> None:
        size = size_of(resolution)
        published = auto.resolve(size, gpus, batch_size)
        channel_base = published.channel_base if channel_base is None else channel_base
        r1_gamma = published.r1_gamma / 4 if r1_gamma is None else r1_gamma
        ema_kimg = published.ema_kimg if ema_kimg is None else ema_kimg
        mbstd_group = published.mbstd_group if mbstd_group is None else mbstd_group
        batch_size = published.batch_size
        check_groups(batch_size // accumulate, mbstd_group)
        options = {**locals(), "resolution": size}  # with the numbers that were null resolved
        path_length = PathLength(path_length_weight, path_length_every, path_length_shrink)
        super().__init__(
            generator=fast(build_network(swagan.Generator, options)),
            discriminator=freeze(fast(build_network(swagan.Discriminator, options)), freeze_layers),
            loss=NonSaturating(),
            penalties={"penalty/r1": R1(r1_gamma, r1_every)} if r1_gamma > 0 else {},
            generator_penalties={"penalty/path_length": path_length} if path_length_weight > 0 else {},
            half_penalties=True,
            augment=before_discriminator(augment, blur_sigma, blur_fade_kimg or batch_size * 200 / 32),
            learning_rate=learning_rate,
            betas=betas,
            d_steps=1,
            accumulate=accumulate,
            ema_kimg=ema_kimg,
            ema_rampup=ema_rampup,
        )
        self.save_hyperparameters(ignore=["augment"], logger=False)
