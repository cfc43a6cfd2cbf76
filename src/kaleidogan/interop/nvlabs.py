"""Networks with the official StyleGAN2-ADA release's tensor names: their weights in our networks."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from kaleidogan.models import stylegan2

FIXED = ("resample_filter",)
"""Tensors of theirs that are constants: our filters are written out in `models.ops`."""


def networks(
    meta: Mapping[str, Any],
    G: Mapping[str, ArrayLike],  # noqa: N803 - the papers' letters
    D: Mapping[str, ArrayLike],  # noqa: N803
) -> tuple[stylegan2.Generator, stylegan2.Discriminator]:
    """Build our networks with weights under the official names.

    Args:
        meta: the configuration: `res`, `channel_base`, `channel_max`, `mapping_layers`, `c_dim`, `z_dim`,
            `w_dim`, `img_channels`, `mbstd_group`; and `architecture` and `d_architecture` where they are not
            skip and resnet.
        G: the generator's tensors by their names, such as `synthesis.b8.conv0.weight`.
        D: the discriminator's, such as `b8.skip.weight`.

    Returns:
        (generator, discriminator), in eval mode.

    Raises:
        ValueError: if a tensor is missing, unknown or of another shape; names them.
    """
    size = (int(meta["res"]), int(meta["res"]))
    shared: dict[str, Any] = {
        "resolution": size,
        "channels": int(meta.get("img_channels", 3)),
        "c_dim": int(meta.get("c_dim", 0)),
        "channel_base": int(meta["channel_base"]),
        "channel_max": int(meta["channel_max"]),
    }
    generator = stylegan2.Generator(
        **shared,
        latent_dim=int(meta["z_dim"]),
        w_dim=int(meta["w_dim"]),
        mapping_layers=int(meta["mapping_layers"]),
        generator_architecture=meta.get("architecture", "skip"),
    )
    discriminator = stylegan2.Discriminator(
        **shared,
        discriminator_architecture=meta.get("d_architecture", "resnet"),
        mbstd_group=int(meta.get("mbstd_group", 4)),
    )
    levels = [side for side, _ in stylegan2.stage_sizes(size)]
    load(
        generator,
        {generator_name(name, levels): ours(name, value) for name, value in G.items() if is_learnt(name)},
    )
    load(
        discriminator,
        {discriminator_name(name, levels): value for name, value in D.items() if is_learnt(name)},
    )
    return generator.eval(), discriminator.eval()


def is_learnt(name: str) -> bool:
    """Whether a tensor of theirs is anything but a fixed filter."""
    return not name.endswith(FIXED)


def ours(name: str, value: ArrayLike) -> ArrayLike:
    """A tensor of theirs in our order: convolutions that double the sides have inputs first."""
    is_up = re.fullmatch(r"synthesis\.b\d+\.conv0\.weight", name)
    return np.swapaxes(np.array(value), 0, 1) if is_up else value


def generator_name(name: str, levels: list[int]) -> str:
    """Our name for a tensor of the official generator; `levels` are the blocks' sides."""
    name = re.sub(r"^synthesis\.b(\d+)\.", lambda match: _block(match, levels), name).replace(
        ".torgb.", ".to_picture."
    )
    return _mapping_name(name).replace("map.w_avg", "w_avg")


def discriminator_name(name: str, levels: list[int]) -> str:
    """Our name for a tensor of the official discriminator; `levels` are the blocks' sides."""
    first, last = f"b{levels[-1]}.fromrgb.", f"b{levels[0]}."
    if name.startswith(first):
        return name.replace(first, "from_picture.")
    if name.startswith(last):
        return name.removeprefix(last).replace("fc.", "dense.")
    return _mapping_name(re.sub(r"^b(\d+)\.", lambda match: _block(match, levels[::-1]), name))


def _block(match: re.Match[str], levels: list[int]) -> str:
    """Our name for a block of theirs; a block that our network has not keeps its name, for the message."""
    side = int(match[1])
    return f"blocks.{levels.index(side)}." if side in levels else match[0]


def _mapping_name(name: str) -> str:
    return re.sub(r"^mapping\.", "map.", re.sub(r"^mapping\.fc(\d+)\.", r"mapping.layers.\1.", name))


def load(network: nn.Module, tensors: Mapping[str, ArrayLike]) -> None:
    """Put tensors under our names into a network.

    Raises:
        ValueError: if the names or shapes are not those of the network; names each.
    """
    own = network.state_dict()
    problems = [f"lacks {name}" for name in own.keys() - tensors.keys()]
    problems += [f"has {name}, which the network has not" for name in tensors.keys() - own.keys()]
    values = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    problems += [
        f"has {name} of {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in values.items()
        if name in own and value.shape != own[name].shape
    ]
    if problems:
        raise ValueError("the file " + "; ".join(sorted(problems)))
    network.load_state_dict(values)
