"""Runs side by side: radial power spectra, the noise in flat areas, and the sliced Wasserstein distance.

    python benchmarks/texture.py --data data/pictures --out spectra.png runs/stylegan2 runs/swagan

Each run's averaged generator makes pictures of seeds 0, 1, 2 ... with its stored noise, and once more without
noise, which tells how much of the texture the noise inputs make.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kaleidogan.data.datamodule import ImageData
from kaleidogan.metrics.swd import SlicedWasserstein
from kaleidogan.metrics.texture import FlatNoise, radial_spectrum, spectrum_gap
from kaleidogan.sampling import conditions, latents, load_generator, synthesize
from kaleidogan.training.callbacks.quality import as_saved
from kaleidogan.training.runs import find_checkpoints


def main() -> None:
    """Print the table and draw the spectra."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs of one resolution")
    parser.add_argument("--data", required=True, help="the folder of their data set")
    parser.add_argument("--count", type=int, default=512, help="pictures of each")
    parser.add_argument("--out", type=Path, default=Path("spectra.png"))
    options = parser.parse_args()
    trained = {run.name: load_generator(find_checkpoints(run)) for run in options.runs}
    shape = next(iter(trained.values())).generator.image_shape
    assert isinstance(shape, tuple)
    reals = as_saved(
        ImageData(resolution=shape[1:], channels=shape[0], path=options.data).reals(options.count),
        options.count,
    )
    flat_noise, swd, spectrum = FlatNoise(reals), SlicedWasserstein(reals), radial_spectrum(reals)
    figure = Figure(figsize=(9, 5.5), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    frequencies = np.arange(1, len(spectrum) + 1)
    axes.plot(frequencies, spectrum.numpy(), color="black", linewidth=2, label="reals")
    print(f"{'':<28}{'SWD':>8}{'gap dB':>8}{'high dB':>8}{'flat noise':>12}")
    print(f"{'reals':<28}{'':>24}{flat_noise(reals):12.2f}")
    for number, (name, found) in enumerate(trained.items()):
        z = latents(range(len(reals)), found.generator.latent_dim)  # type: ignore[arg-type]
        c = conditions(found.generator, range(len(reals)))
        for noise in ("const", "none"):
            with torch.no_grad():
                fakes = as_saved(synthesize(found.generator, z, c, noise=noise), len(reals))
            made = radial_spectrum(fakes)
            gap, high = spectrum_gap(made, spectrum)
            distances = swd(fakes)
            mean = sum(distances.values()) / len(distances)
            words = f"{name}, {'with' if noise == 'const' else 'without'} noise"
            print(f"{words:<28}{mean:8.1f}{gap:8.1f}{high:+8.1f}{flat_noise(fakes):12.2f}")
            style = "-" if noise == "const" else ":"
            axes.plot(frequencies, made.numpy(), style, color=f"C{number}", label=words)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("frequency, cycles in the shorter side")
    axes.set_ylabel("power of the luminance, dB")
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.print_png(options.out)


if __name__ == "__main__":
    main()
