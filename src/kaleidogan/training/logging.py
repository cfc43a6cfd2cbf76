"""Where a training's numbers and pictures are recorded: W&B or its offline fall-back, CSV, TensorBoard.

The x axis is `progress/kimg` everywhere; `step` is the number of images seen.
"""

import csv
import netrc
import os
import shlex
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

import numpy as np
from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_utilities.core.rank_zero import rank_zero_only
from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger

from kaleidogan.settings import Positive
from kaleidogan.training.runs import Run

Pixels = NDArray[np.uint8]
X_AXIS = "progress/kimg"
CHARTS = (
    "loss",
    "logit",
    "penalty",
    "gradient",
    "health",
    "augment",
    "growth",
    "speed",
    "memory",
    "metric",
    "samples",
    "progress/passes",
)
"""What is drawn over the x axis: a metric of its own for each, since W&B lets only one rule hold for `*`."""


@runtime_checkable
class PictureLogger(Protocol):
    """A logger that takes pictures."""

    def log_picture(self, key: str, pixels: Pixels, step: int) -> None:
        """Record a picture, [h, w, c]."""
        ...


class CSV(Logger):
    """The scalars as `metrics.csv` in the run's folder: a row a tick, a column a scalar."""

    def __init__(self, *, run: Run) -> None:
        super().__init__()
        self.path = run.folder / "metrics.csv"
        self._run = run

    @property
    def name(self) -> str:
        """The run's name."""
        return self._run.name

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run.id

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the configuration stands in `config.yaml` beside."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; a scalar that was never seen before makes a new column."""
        row = {"images": step, **metrics}
        columns = self._columns()
        if new := [key for key in row if key not in columns]:
            columns += new
            self._rewrite(columns, self.rows())
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, columns).writerow(row)

    @rank_zero_only
    def cut(self, images: int) -> None:
        """Drop the rows of later images: they come again."""
        columns = self._columns()
        if columns:
            self._rewrite(columns, [row for row in self.rows() if int(row["images"]) <= images])

    def rows(self) -> list[dict[str, str]]:
        """All rows that were written whole."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as stream:
            # A kill may have cut the last line short.
            return [row for row in csv.DictReader(stream) if None not in row.values() and row["images"]]

    def _columns(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as stream:
            return next(csv.reader(stream), [])

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        aside = self.path.with_suffix(".tmp")
        with aside.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
        aside.replace(self.path)


class Wandb(Logger):
    """Weights & Biases: online where there is a key and the server answers, else offline, to sync later.

    Args:
        run: the run's folder, name and id.
        project: in W&B.
        entity: the user or team; None: the key's own.
        group: runs that belong together; None: those of a sweep.
        tags: words to find the run by; none: what differs in a sweep.
        mode: auto, or online or offline by force; the environment's WANDB_MODE goes before auto.
        init_timeout_s: how long to wait for the server before going offline, in seconds.
    """

    def __init__(
        self,
        *,
        run: Run,
        project: str = "kaleidogan",
        entity: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        mode: Literal["auto", "online", "offline"] = "auto",
        init_timeout_s: Positive = 15.0,
    ) -> None:
        super().__init__()
        self._run = run
        self._options: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group or run.sweep.get("group"),
            "tags": list(tags) or run.sweep.get("tags"),
        }
        self._mode = mode
        self._init_timeout_s = init_timeout_s
        self._experiment: Any = None
        self._url: str | None = None

    @property
    def name(self) -> str:
        """The run's name."""
        return self._run.name

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def address(self) -> str:
        """Where the record is to be seen, or the command that sends it there."""
        if self._url is not None:
            return self._url
        folders = sorted((self._run.folder / "wandb").glob("offline-run-*"))
        return shlex.join(["wandb", "sync", *(_short(folder) for folder in folders)])

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, begun when it is first asked for."""
        if self._experiment is None:
            self._experiment = self._begin()
            self._url = None if self._experiment.offline else self._experiment.url
            self._experiment.define_metric(X_AXIS)
            for chart in CHARTS:
                self._experiment.define_metric(chart if "/" in chart else f"{chart}/*", step_metric=X_AXIS)
        return self._experiment

    def _begin(self) -> Any:
        import wandb  # two seconds that other loggers need not wait for

        mode = os.environ.get("WANDB_MODE", self._mode) if self._mode == "auto" else self._mode
        reason = "there is no API key" if mode == "auto" and not has_wandb_key() else ""
        if not reason and mode in ("auto", "online"):
            try:
                return self._init("online")
            except (wandb.errors.CommError, wandb.errors.UsageError) as error:
                if mode == "online":
                    raise ValueError(f"logger.wandb.mode=online, but W&B says: {error}") from error
                wandb.teardown()  # the failed attempt still holds the run's id
                reason = f"the server did not answer ({str(error).splitlines()[0]})"
        experiment = self._init("disabled" if mode == "disabled" else "offline")
        if mode != "disabled":
            folder = Path(experiment.dir).parent
            print(f"W&B is offline{f': {reason}' if reason else ''}. To send it: wandb sync {_short(folder)}")
        return experiment

    def _init(self, mode: Literal["online", "offline", "disabled"]) -> Any:
        import wandb

        self._run.folder.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            **self._options,
            id=self._run.id,
            name=self._run.name,
            resume="allow" if mode == "online" else None,
            dir=str(self._run.folder.absolute()),  # W&B writes from a process with a folder of its own
            mode=mode,
            settings=wandb.Settings(
                init_timeout=self._init_timeout_s,
                quiet=True,
                silent=mode != "online",
                show_emoji=False,
                console="off",  # the progress bar would fill the log with its redraws
            ),
        )

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add to the run's configuration."""
        self.experiment.config.update(
            vars(params) if isinstance(params, Namespace) else params, allow_val_change=True
        )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record a point of each scalar."""
        # Steps are images: a point that is logged again after a resume falls on the one it was.
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def replay(self, rows: list[dict[str, str]]) -> None:
        """Record earlier rows again where a run goes on offline, in a file of its own.

        The file of a start that was killed may never have reached the disk; so each has the whole story.
        """
        if self.experiment.offline:
            for row in rows:
                scalars = {key: float(value) for key, value in row.items() if value and key != "images"}
                self.experiment.log(scalars, step=int(row["images"]))

    @rank_zero_only
    def log_picture(self, key: str, pixels: Pixels, step: int) -> None:
        """Record a picture at the images seen."""
        import wandb

        picture = wandb.Image(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels)
        self.experiment.log({key: picture, X_AXIS: step / 1000}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run: what is left goes to the server, or to the disk."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


def has_wandb_key() -> bool:
    """Whether W&B would find an API key without asking: in the environment or in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class TensorBoard(Logger):
    """TensorBoard: scalars and pictures over the images seen, in `tensorboard/` of the run's folder."""

    def __init__(self, *, run: Run) -> None:
        super().__init__()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "logger=tensorboard needs the package tensorboard: uv sync --extra tensorboard"
            ) from error
        self._run = run
        self._open = partial(SummaryWriter, run.folder / "tensorboard")
        self._writer = self._open()

    @property
    def name(self) -> str:
        """The run's name."""
        return self._run.name

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run.id

    @rank_zero_only
    def cut(self, images: int) -> None:
        """Have TensorBoard drop the points of later images: they come again."""
        self._writer.close()
        self._writer = self._open(purge_step=images + 1)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Record the configuration as text."""
        self._writer.add_text("config", f"```\n{params}\n```")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record a point of each scalar."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)

    @rank_zero_only
    def log_picture(self, key: str, pixels: Pixels, step: int) -> None:
        """Record a picture at the images seen."""
        self._writer.add_image(key, pixels, step, dataformats="HWC")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write out what is left."""
        self._writer.close()


def _short(path: Path) -> str:
    """A path as seen from here, where that is shorter."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
