"""The task `grid`: a picture for each seed, and all of them on one sheet."""

from pathlib import Path
from typing import Literal

from tqdm import tqdm

from kaleidogan.art.generate import provenance
from kaleidogan.sampling import Trained, conditions, grid, latents, save_png, synthesize, to_uint8
from kaleidogan.settings import Count, CountOrZero, Seeds, parse_seeds


def save_grid(
    *,
    seeds: Seeds,
    psi: float,
    label: CountOrZero | str | None,
    condition: dict[str, float] | None,
    cutoff: Count | None = None,
    noise: Literal["const", "random", "none"] = "const",
    columns: Count | None = None,
    trained: Trained,
    folder: Path,
) -> None:
    """Save `seedNNNN.png` for each seed, and `grid.png` with all.

    Args:
        seeds: one picture each.
        psi: truncation.
        label: class of all pictures, by number or name; null: each seed's in turn.
        condition: numbers of all pictures, by name.
        cutoff: layers that psi acts on, from the first; null: all.
        noise: of a style-based generator: const: a seed's picture is the same in every call; random; none.
        columns: pictures in a row of the grid; null: as many as make it about square.
        trained: the generator.
        folder: where the pictures go.
    """
    numbers = parse_seeds(seeds)
    dim = trained.generator.latent_dim
    assert isinstance(dim, int)
    z = latents(numbers, dim)
    c = conditions(trained, numbers, label, condition)
    drawn = synthesize(trained.generator, z, c, psi=psi, cutoff=cutoff, noise=noise)
    settings = {"psi": psi, "label": label, "condition": condition, "cutoff": cutoff, "noise": noise}
    made = tqdm(drawn, total=len(numbers), unit="picture")
    pictures = []
    for seed, image in zip(numbers, made, strict=True):
        pictures.append(to_uint8(image))
        save_png(
            folder / f"seed{seed:04d}.png",
            pictures[-1],
            provenance(trained, seed, **settings),
        )
    sheet = grid(pictures, columns)
    save_png(folder / "grid.png", sheet, {"seeds": seeds, "checkpoint": trained.digest})
    print(f"{len(pictures)} pictures and grid.png in '{folder}'")
