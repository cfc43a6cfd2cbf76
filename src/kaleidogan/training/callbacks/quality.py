"""Quality: how near the averaged generator's pictures come to the real ones, tick by tick."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from kaleidogan.data.datamodule import ImageData
from kaleidogan.metrics.swd import SlicedWasserstein
from kaleidogan.metrics.texture import FlatNoise, radial_spectrum, spectrum_gap
from kaleidogan.sampling import Pixels, latents, save_png, synthesize
from kaleidogan.settings import Count
from kaleidogan.training.gan import GAN
from kaleidogan.training.logging import PictureLogger

FEWEST = 2
"""Pictures without which there is nothing to compare."""
MOST_PIXELS = 2**27
"""Of all pictures that are compared: 1.6 GB in RGB, 128 pictures of 1024 px."""
CHUNK = 16
"""Reals that are shown to the networks' view at once."""


@dataclass(frozen=True)
class Reals:
    """What is known of the real pictures, as the networks see them for the time being."""

    seen: Tensor
    swd: SlicedWasserstein
    spectrum: Tensor
    flat_noise: FlatNoise
    noise: float


class Quality(pl.Callback):
    """Measures pictures of fixed seeds against reals; `Record` writes the numbers into the tick's row.

    `metric/swd` is the sliced Wasserstein distance, also for each level of the pyramid (`metric/swd_16`);
    `metric/spectrum_gap_db` how far the spectra are apart, `metric/spectrum_high_db` how much too strong the
    highest quarter of frequencies is; `metric/flat_noise` the noise in flat areas, in gray levels, beside
    that of the reals. At the end both spectra are drawn, as `samples/spectrum.png`.

    Args:
        pictures: made, and as many reals; fewer if the set has fewer, and from 1024 px on.
    """

    def __init__(self, *, pictures: Count = 256) -> None:
        self._pictures = pictures
        self._reals: Reals | None = None
        self.found: dict[str, float] = {}
        """What was measured at the end of the last tick; none where there is nothing to compare."""
        self._spectra: tuple[int, Tensor, Tensor] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so if there is nothing to measure against."""
        if trainer.is_global_zero and (count := self.count(trainer)) < FEWEST:
            of = "callbacks.quality.pictures" if self._pictures < FEWEST else "the data set's size"
            print(f"note: no metric/* is measured: {of} is {count}, and it takes {FEWEST} pictures")

    def measure(self, trainer: pl.Trainer, gan: GAN) -> dict[str, float]:
        """Compare the pictures of now with the reals, on the first rank."""
        if not trainer.is_global_zero or self.count(trainer) < FEWEST:
            return {}
        fakes = self._fakes(trainer, gan)
        reals = self._known(trainer, gan)
        spectrum = radial_spectrum(fakes)
        self._spectra = gan.images_seen, reals.spectrum, spectrum
        levels = reals.swd(fakes)
        gap, high = spectrum_gap(spectrum, reals.spectrum)
        self.found = {
            "metric/swd": sum(levels.values()) / len(levels),
            **{f"metric/swd_{side}": value for side, value in levels.items()},
            "metric/spectrum_gap_db": gap,
            "metric/spectrum_high_db": high,
            "metric/flat_noise": reals.flat_noise(fakes),
            "metric/flat_noise_real": reals.noise,
        }
        return self.found

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw both spectra."""
        assert isinstance(pl_module, GAN)
        if not trainer.is_global_zero or self.count(trainer) < FEWEST:
            return
        if self._spectra is None or self._spectra[0] != pl_module.images_seen:
            fakes = radial_spectrum(self._fakes(trainer, pl_module))
            self._spectra = pl_module.images_seen, self._known(trainer, pl_module).spectrum, fakes
        # Those of the last tick: a level may have begun since.
        drawn = draw_spectra(*self._spectra[1:])
        save_png(Path(trainer.default_root_dir) / "samples" / "spectrum.png", drawn)
        for logger in trainer.loggers:
            if isinstance(logger, PictureLogger):
                logger.log_picture("samples/spectrum", drawn, pl_module.images_seen)

    def count(self, trainer: pl.Trainer) -> int:
        """Pictures that are made and compared."""
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        fitting = MOST_PIXELS // (data.image_shape[1] * data.image_shape[2])
        return min(self._pictures, len(data.index), fitting)

    def _fakes(self, trainer: pl.Trainer, gan: GAN) -> Tensor:
        count = self.count(trainer)
        z = latents(range(count), gan.generator.latent_dim)  # type: ignore[arg-type]
        c = trainer.datamodule.conditions(count)  # type: ignore[attr-defined]
        return as_saved(synthesize(gan.average, z, c), count)

    def _known(self, trainer: pl.Trainer, gan: GAN) -> Reals:
        """What is known of the reals; learnt again where a growing network looks at them anew."""
        # Noise, since a level may make no difference to a picture that has no detail.
        shape = trainer.datamodule.image_shape  # type: ignore[attr-defined]
        noise = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(gan.device)
        with torch.no_grad():
            seen = gan.view(noise)
        if self._reals is None or not torch.equal(self._reals.seen, seen):
            pictures = trainer.datamodule.reals(self.count(trainer))  # type: ignore[attr-defined]
            with torch.no_grad():
                chunks = (gan.view(chunk.to(gan.device)).cpu() for chunk in pictures.split(CHUNK))
                reals = as_saved((picture for chunk in chunks for picture in chunk), len(pictures))
            flat_noise = FlatNoise(reals)
            self._reals = Reals(
                seen=seen,
                swd=SlicedWasserstein(reals),
                spectrum=radial_spectrum(reals),
                flat_noise=flat_noise,
                noise=flat_noise(reals),
            )
        return self._reals


def as_saved(pictures: Iterable[Float[Tensor, "c h w"]], count: int) -> Float[Tensor, "n c h w"]:
    """Clip and round so many pictures to the 255 levels that they are saved in, as the reals were."""
    saved = torch.empty(0)
    for number, picture in enumerate(pictures):
        if number == 0:
            saved = torch.empty(count, *picture.shape)
        saved[number] = ((picture + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    return saved


def draw_spectra(reals: Float[Tensor, " f"], fakes: Float[Tensor, " f"]) -> Pixels:
    """Plot two spectra over frequency, in octaves."""
    # Half a second of import that a training without this callback need not wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    frequencies = np.arange(1, len(reals) + 1)
    axes.plot(frequencies, reals.numpy(), label="reals", color="black")
    axes.plot(frequencies, fakes.numpy(), label="fakes", color="tab:red")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("frequency, cycles in the shorter side")
    axes.set_ylabel("power of the luminance, dB")
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[:, :, :3]  # type: ignore[no-untyped-call]
