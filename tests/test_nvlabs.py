"""The official network's outputs, on weights that anyone can make from the tensor names."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleidogan.interop import nvlabs

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
        if name.endswith("affine.bias"):
            values = values + 1
        if name.endswith("noise_strength"):
            values = values * 0.05
        if ".mapping.fc" in full:
            values = values * 100
        if name.endswith("w_avg"):
            values = values * 0.1
        tensors[name] = np.asarray(values, "float32")
    return tensors


def close(found: torch.Tensor, wanted: np.ndarray) -> None:
    assert np.abs(found.numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["stylegan2_32", "stylegan2_32_cond"])
@torch.no_grad()
def test_outputs_are_the_official_networks(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    meta = json.loads(str(golden["meta"]))
    generator, discriminator = nvlabs.networks(meta, regenerate("G", meta["G"]), regenerate("D", meta["D"]))
    z = torch.from_numpy(golden["z"])
    c = torch.from_numpy(golden["c"]) if meta["c_dim"] else None
    close(generator.mapping(z, c)[:, 0], golden["w"])
    close(generator.mapping(z, c, psi=0.7)[:, 0], golden["w_psi07"])
    close(generator.mapping(z, c, psi=1.5)[:, 0], golden["w_psi15"])
    image = generator.synthesis(generator.mapping(z, c), noise="const")
    close(image, golden["image_const"])
    close(generator.synthesis(generator.mapping(z, c, psi=0.7), noise="none"), golden["image_psi07_nonoise"])
    close(discriminator(image, c), golden["logits"].squeeze(1))
