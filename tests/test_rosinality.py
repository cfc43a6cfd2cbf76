"""The port's outputs, on weights that anyone can make from the tensor names."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleidogan.interop import rosinality
from test_nvlabs import close

GOLDEN = Path(__file__).parent / "golden"


def regenerate(network: str, shapes: dict[str, list]) -> dict[str, np.ndarray]:
    """The weights that the golden outputs were made with."""
    tensors = {}
    for name, shape in shapes.items():
        if shape and shape[0] == "constant":
            continue
        full = f"{network}.{name}"
        values = np.random.default_rng(zlib.crc32(full.encode())).standard_normal(shape)
        values = np.asarray(values, "float32")
        if name.endswith(".bias"):
            values = values * 0.1
        if name.endswith("modulation.bias"):
            values = values + 1
        if ".style." in full:
            values = values * 100
        if name.endswith("noise.weight"):
            values = values * 0.05
        tensors[name] = np.asarray(values, "float32")
    return tensors


@torch.no_grad()
def test_outputs_are_the_ports():
    golden = np.load(GOLDEN / "rosinality_swagan_32.npz")
    meta = json.loads(str(golden["meta"]))
    weights = [regenerate(network, meta[network]) for network in "GD"]
    generator, discriminator = rosinality.networks(meta, *weights)
    z = torch.from_numpy(golden["z"])
    w = generator.mapping(z)
    close(w[:, 0], golden["w"])
    image = generator.synthesis(w, noise="const")
    close(image, golden["image_fixed_noise"])
    close(discriminator(image), golden["logits"].squeeze(1))


def stylegan2_shapes(size: int, multiplier: int, dim: int, layers: int) -> dict[str, dict[str, list]]:
    """Names and shapes of the port's StyleGAN2, as its checkpoints have them."""
    sides = [2**k for k in range(2, int(np.log2(size)) + 1)]
    widths = [min(512, 16384 * multiplier // side) for side in sides]

    def styled(name: str, inputs: int, outputs: int, kernel: int) -> dict[str, list]:
        return {
            f"{name}.conv.weight": [1, outputs, inputs, kernel, kernel],
            f"{name}.conv.modulation.weight": [inputs, dim],
            f"{name}.conv.modulation.bias": [inputs],
        }

    def noisy(name: str, inputs: int, outputs: int) -> dict[str, list]:
        more = {f"{name}.noise.weight": [1], f"{name}.activate.bias": [outputs]}
        return styled(name, inputs, outputs, 3) | more

    def picture(name: str, inputs: int) -> dict[str, list]:
        return styled(name, inputs, 3, 1) | {f"{name}.bias": [1, 3, 1, 1]}

    g: dict[str, list] = {"input.input": [1, widths[0], 4, 4], "noises.noise_0": [1, 1, 4, 4]}
    for layer in range(1, layers + 1):
        g |= {f"style.{layer}.weight": [dim, dim], f"style.{layer}.bias": [dim]}
    g |= noisy("conv1", widths[0], widths[0]) | picture("to_rgb1", widths[0])
    d: dict[str, list] = {"convs.0.0.weight": [widths[-1], 3, 1, 1], "convs.0.1.bias": [widths[-1]]}
    for number, (inputs, outputs, side) in enumerate(zip(widths, widths[1:], sides[1:], strict=False)):
        g |= noisy(f"convs.{2 * number}", inputs, outputs) | noisy(
            f"convs.{2 * number + 1}", outputs, outputs
        )
        g |= picture(f"to_rgbs.{number}", outputs)
        g |= {f"convs.{2 * number}.conv.blur.kernel": ["constant", 4, 4]}
        g |= {f"noises.noise_{2 * number + 1 + more}": [1, 1, side, side] for more in (0, 1)}
        block = f"convs.{len(widths) - 1 - number}"
        d |= {
            f"{block}.conv1.0.weight": [outputs, outputs, 3, 3],
            f"{block}.conv1.1.bias": [outputs],
            f"{block}.conv2.0.kernel": ["constant", 4, 4],
            f"{block}.conv2.1.weight": [inputs, outputs, 3, 3],
            f"{block}.conv2.2.bias": [inputs],
            f"{block}.skip.0.kernel": ["constant", 4, 4],
            f"{block}.skip.1.weight": [inputs, outputs, 1, 1],
        }
    d |= {"final_conv.0.weight": [512, 513, 3, 3], "final_conv.1.bias": [512]}
    d |= {"final_linear.0.weight": [512, 8192], "final_linear.0.bias": [512]}
    d |= {"final_linear.1.weight": [1, 512], "final_linear.1.bias": [1]}
    return {"G": g, "D": d}


@torch.no_grad()
@pytest.mark.parametrize(("size", "multiplier"), [(16, 1), (128, 2)])
def test_the_ports_stylegan2_is_read_too(size, multiplier):
    shapes = stylegan2_shapes(size, multiplier, dim=32, layers=3)
    meta = {
        "size": size,
        "style_dim": 32,
        "n_mlp": 3,
        "channel_multiplier": multiplier,
        "arch": "stylegan2",
    }
    weights = {network: regenerate(network, shapes[network]) for network in "GD"}
    generator, discriminator = rosinality.networks(meta, weights["G"], weights["D"])
    image = generator(torch.randn(2, 32))
    assert image.shape == (2, 3, size, size)
    assert discriminator(image).shape == (2,)
    # Each tensor is in its place: a layer is the one whose size it has.
    up = torch.from_numpy(weights["G"]["convs.2.conv.weight"])[0]
    assert torch.equal(generator.blocks[2].conv0.weight, up.transpose(0, 1))
    down = torch.from_numpy(weights["D"]["convs.1.skip.1.weight"])
    assert torch.equal(discriminator.blocks[0].skip.weight, down)


def test_a_tensor_that_is_missing_is_named():
    shapes = stylegan2_shapes(16, 1, dim=32, layers=3)
    meta = {"size": 16, "style_dim": 32, "n_mlp": 3, "channel_multiplier": 1, "arch": "stylegan2"}
    weights = {network: regenerate(network, shapes[network]) for network in "GD"}
    del weights["D"]["convs.1.skip.1.weight"]
    with pytest.raises(ValueError, match=r"blocks\.0\.skip\.weight"):
        rosinality.networks(meta, weights["G"], weights["D"])
