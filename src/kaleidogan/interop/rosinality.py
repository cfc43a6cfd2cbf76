"""Networks with the tensor names of rosinality/stylegan2-pytorch (MIT): their weights in our networks."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor, nn

from kaleidogan.interop.nvlabs import load
from kaleidogan.models import stylegan2, swagan

FIXED = re.compile(r"(^|\.)(kernel|ll|lh|hl|hh)$")
"""Tensors of theirs that are constants: our filters are written out in `models.ops` and `models.wavelets`."""
FAMILIES = {"stylegan2": stylegan2, "swagan": swagan}
Networks = tuple[stylegan2.StyledGenerator, nn.Module]


def networks(
    meta: Mapping[str, Any],
    G: Mapping[str, ArrayLike],  # noqa: N803 - the papers' letters
    D: Mapping[str, ArrayLike],  # noqa: N803
) -> Networks:
    """Build our networks with weights under the port's names.

    Args:
        meta: the configuration: `size`, `style_dim`, `n_mlp`, `channel_multiplier`, and `arch`: swagan or
            stylegan2.
        G: the generator's tensors by their names, such as `convs.0.conv.weight`.
        D: the discriminator's, such as `convs.0.conv1.0.weight`.

    Returns:
        (generator, discriminator), in eval mode.

    Raises:
        ValueError: if the architecture is unknown, or a tensor is missing, unknown or of another shape; names
            them.
    """
    size, family = int(meta["size"]), FAMILIES.get(meta["arch"])
    if family is None:
        raise ValueError(f"arch '{meta['arch']}' is none of {', '.join(FAMILIES)}")
    shared: dict[str, Any] = {
        "resolution": (size, size),
        "channel_base": 16384 * int(meta["channel_multiplier"]),
        "channel_max": 512,
    }
    styled: dict[str, Any] = {
        "latent_dim": int(meta["style_dim"]),
        "w_dim": int(meta["style_dim"]),
        "mapping_layers": int(meta["n_mlp"]),
    }
    generator: stylegan2.StyledGenerator = family.Generator(**shared, **styled)
    discriminator: nn.Module = family.Discriminator(**shared)
    found = {generator_name(name): _ours(name, value) for name, value in G.items() if not FIXED.search(name)}
    load(generator, {"w_avg": generator.w_avg.numpy(), **found})
    generator.w_avg.copy_(mean_w(generator))
    name_of = _swagan_name if family is swagan else _stylegan2_name
    load(discriminator, {name_of(name): value for name, value in D.items() if not FIXED.search(name)})
    return generator.eval(), discriminator.eval()


@torch.no_grad()
def mean_w(generator: stylegan2.StyledGenerator, count: int = 4096) -> Float[Tensor, " w_dim"]:
    """The mean of w, for truncation: the port does not keep it, and draws latents for it at each use."""
    z = torch.randn(count, generator.latent_dim, generator=torch.Generator().manual_seed(0))
    w: Tensor = generator.map(z, None)
    return w.mean(dim=0)


def generator_name(name: str) -> str:
    """Our name for a tensor of the port's generator."""
    rules = [
        (r"^style\.(\d+)\.", lambda m: f"map.layers.{int(m[1]) - 1}."),
        (r"^input\.input$", lambda m: "blocks.0.const"),
        (r"^conv1\.", lambda m: "blocks.0.conv1."),
        (r"^to_rgb1\.", lambda m: "blocks.0.to_picture."),
        (r"^convs\.(\d+)\.", lambda m: f"blocks.{int(m[1]) // 2 + 1}.conv{int(m[1]) % 2}."),
        (r"^to_rgbs\.(\d+)\.", lambda m: f"blocks.{int(m[1]) + 1}.to_picture."),
        (r"^noises\.noise_(\d+)$", lambda m: _noise_name(int(m[1]))),
        (r"\.conv\.modulation\.", lambda m: ".affine."),
        (r"\.conv\.weight$", lambda m: ".weight"),
        (r"\.noise\.weight$", lambda m: ".noise_strength"),
        (r"\.activate\.bias$", lambda m: ".bias"),
    ]
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _noise_name(number: int) -> str:
    block, layer = divmod(number + 1, 2)
    return f"blocks.{block}.conv{layer}.noise_const"


def _ours(name: str, value: ArrayLike) -> Any:
    """A tensor of the port's generator in our shape."""
    array = np.array(value)
    if name.endswith(".conv.weight") or name == "input.input":
        array = array[0]
    elif name.startswith("noises."):
        array = array[0, 0]
    elif name.endswith("noise.weight"):
        array = array[0]
    elif name.startswith("to_rgb") and name.endswith(".bias") and "modulation" not in name:
        array = array.reshape(-1)
    is_up = re.fullmatch(r"convs\.\d*[02468]\.conv\.weight", name)
    return np.swapaxes(array, 0, 1) if is_up else array


ENDS = {
    "final_conv.0.weight": "conv.weight",
    "final_conv.1.bias": "conv.bias",
    "final_linear.0.weight": "dense.weight",
    "final_linear.0.bias": "dense.bias",
    "final_linear.1.weight": "out.weight",
    "final_linear.1.bias": "out.bias",
}
PARTS = {
    "conv1.0.weight": "conv0.weight",
    "conv1.1.bias": "conv0.bias",
    "conv2.1.weight": "conv1.weight",
    "conv2.2.bias": "conv1.bias",
    "skip.1.weight": "skip.weight",
}


def _swagan_name(name: str) -> str:
    """Our name for a tensor of the port's SWAGAN discriminator."""
    if match := re.fullmatch(r"from_rgbs\.(\d+)\.conv\.[01]\.(weight|bias)", name):
        return f"from_bands.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"convs\.(\d+)\.(.+)", name):
        return f"blocks.{match[1]}.{PARTS.get(match[2], match[2])}"
    return ENDS.get(name, name)


def _stylegan2_name(name: str) -> str:
    """Our name for a tensor of the port's StyleGAN2 discriminator."""
    if match := re.fullmatch(r"convs\.0\.[01]\.(weight|bias)", name):
        return f"from_picture.{match[1]}"
    if match := re.fullmatch(r"convs\.(\d+)\.(.+)", name):
        return f"blocks.{int(match[1]) - 1}.{PARTS.get(match[2], match[2])}"
    return ENDS.get(name, name)
