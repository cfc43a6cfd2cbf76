"""The port's outputs, on weights that anyone can make from the tensor names."""

import json
import zlib
from pathlib import Path

import numpy as np
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
