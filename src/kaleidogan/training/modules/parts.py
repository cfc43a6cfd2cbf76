"""What the models have in common when their networks are built."""

import inspect
from typing import Any

import torch
from torch import nn

from kaleidogan.models.layers import Conv, Dense
from kaleidogan.training import ranks
from kaleidogan.training.augment.fade import Fade
from kaleidogan.training.gan import GAN


def check_groups(part: int, group: int) -> None:
    """Refuse a part of a batch that the minibatch deviation could only look at picture by picture.

    Raises:
        ValueError: names the number of pictures and the remedy.
    """
    if group > 1 and not any(part % size == 0 for size in range(2, group + 1)):
        raise ValueError(
            f"{part} pictures at a time (batch_size / accumulate) cannot be cut into groups of 2 to {group}, "
            "which the minibatch deviation is found over: take an even number, or set model.mbstd_group=1"
        )


def check_share(batch_size: int, gan: GAN, called: str = "batch_size=") -> None:
    """Refuse a batch that cannot be shared by the ranks and cut as asked.

    Raises:
        ValueError: names the numbers.
    """
    parts = gan.accumulate * ranks.size()
    if batch_size % parts:
        shared = f" on {ranks.size()} ranks" if ranks.size() > 1 else ""
        raise ValueError(f"accumulate={gan.accumulate}{shared} does not divide {called}{batch_size} evenly")
    check_groups(batch_size // parts, gan.hparams.get("mbstd_group", 1))


def build_network(network: type[nn.Module], options: dict[str, Any]) -> nn.Module:
    """Build a network from those of a model's options that it takes."""
    return network(**{key: options[key] for key in inspect.signature(network).parameters if key in options})


def before_discriminator(augment: nn.Module | None, blur_sigma: float, blur_fade_kimg: float) -> nn.Module:
    """What stands before the discriminator: a blur that fades, if any, then the augmentation, if any."""
    pipe = nn.Sequential()
    if blur_sigma > 0:
        pipe.add_module("blur", Fade(blur_sigma, blur_fade_kimg))
    if augment is not None:
        pipe.add_module("augment", augment)
    return pipe


def freeze(discriminator: nn.Module, count: int) -> nn.Module:
    """Keep some layers' weights, from the picture inwards.

    From Mo, Cho and Shin 2020, "Freeze the discriminator: a simple baseline for fine-tuning GANs".

    Raises:
        ValueError: if there are not as many.
    """
    # A network whose parts are not in that order says how they follow one another.
    parts: list[nn.Module] = getattr(discriminator, "inwards", lambda: [discriminator])()
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, Conv | Dense)]
    if count >= len(layers):
        raise ValueError(f"freeze_layers={count}: the discriminator has {len(layers)}, and one has to learn")
    for layer in layers[:count]:
        layer.requires_grad_(False)
    return discriminator


def fast(network: nn.Module) -> nn.Module:
    """Lay a network's weights out as channels-last, which convolutions of this size run faster with."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
