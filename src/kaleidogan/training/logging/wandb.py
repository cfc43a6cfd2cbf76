"""Weights & Biases, which may be away: training neither waits for it nor ends with it.

One run is one record, over all its starts: what an earlier start recorded and this record lacks is told again
from `metrics.csv` and `samples/`, and the earlier record is put aside.
"""

import netrc
import os
import shlex
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

from kaleidogan.settings import Count, Positive
from kaleidogan.training.logging.about import chosen_tags, environment, meaningful
from kaleidogan.training.logging.interface import Pixels
from kaleidogan.training.runs import Run

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
LESS_IS_BETTER = {"metric"}
"""Charts whose least value goes to the summary, beside the last."""
FLUSHED_S = 60.0
"""Seconds after which W&B's process has surely written down what it was told: it does so every 15."""


class Wandb(Logger):
    """Weights & Biases: online where there is a key and the server answers, else offline, to sync later.

    Args:
        run: the run's folder, name and id.
        config: the settings.
        choices: the options that were chosen for each group.
        project: in W&B.
        entity: the user or team; null: the key's own.
        group: runs that belong together; None: those of a sweep.
        job_type: what kind of job it is within its group.
        tags: words to find the run by, besides those of its model, data, augmentation, experiment and sweep.
        notes: what there is to say about the run.
        mode: auto, or online or offline by force; the environment's WANDB_MODE goes before auto.
        pictures: the most that are recorded of a kind, evenly over the length of the run; samples/ has all.
        artifacts: checkpoints to record: none, latest and best as they are at the end of a start, or all:
            those and each that is kept for good.
        init_timeout_s: how long to wait for the server before going offline, in seconds.
        finish_timeout_s: how long the end may wait for what is not sent yet, in seconds.
    """

    def __init__(
        self,
        *,
        run: Run,
        config: dict[str, Any],
        choices: dict[str, Any],
        project: str = "kaleidogan",
        entity: str | None = None,
        group: str | None = None,
        job_type: str = "train",
        tags: tuple[str, ...] = (),
        notes: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        pictures: Count = 100,
        artifacts: Literal["none", "latest", "best", "all"] = "none",
        init_timeout_s: Positive = 15.0,
        finish_timeout_s: Positive = 20.0,
    ) -> None:
        super().__init__()
        self._run = run
        self._options: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group or run.sweep.get("group"),
            "job_type": job_type,
            "tags": list(dict.fromkeys([*tags, *run.sweep.get("tags", []), *chosen_tags(config, choices)])),
            "notes": notes,
            "config": meaningful(config),
        }
        self._mode = mode
        self._period = max(1, round((config.get("kimg") or 0.0) * 1000 / pictures))
        self._artifacts = artifacts
        self._timeouts = {"init_timeout": init_timeout_s, "finish_timeout": finish_timeout_s}
        self._experiment: Any = None
        self._over = False
        self._url: str | None = None
        self._record: Path | None = None
        self._earlier: list[Path] = []
        self._told: float | None = None
        self._first_step = 0
        self._shown: dict[str, int] = {}
        self._to_send: dict[Path, list[str]] = {}
        self._sending: list[threading.Thread] = []

    @property
    def name(self) -> str:
        """The run's name."""
        return self._run.name

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def address(self) -> str | None:
        """Where the record is to be seen, or the command that sends it there; None if nothing is recorded."""
        if self._url is not None:
            return self._url
        if self._record is None:
            return None
        # Without the word, W&B passes over what was begun online, and says that all went well.
        words = [] if self._record.name.startswith("offline-") else ["--include-online"]
        return shlex.join(["wandb", "sync", *words, _short(self._record)])

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, begun when it is first asked for; None once it is over."""
        if self._experiment is None and not self._over:
            try:
                self._begin()
            except ValueError:
                raise
            except Exception as error:  # see _safely
                self._lose(error)
        return self._experiment

    def _begin(self) -> None:
        import wandb  # two seconds that other loggers need not wait for

        mode = os.environ.get("WANDB_MODE", self._mode) if self._mode == "auto" else self._mode
        reason = "there is no API key" if mode == "auto" and not has_wandb_key() else ""
        if not reason and mode in ("auto", "online"):
            try:
                self._experiment = self._init("online")
            except (wandb.errors.Error, OSError) as error:
                if mode == "online":
                    raise ValueError(f"logger.wandb.mode=online, but W&B says: {error}") from error
                wandb.teardown()  # the failed attempt still holds the run's id
                reason = f"the server did not answer ({str(error).splitlines()[0]})"
        if self._experiment is None:
            self._experiment = self._init("disabled" if mode == "disabled" else "offline")
        if mode != "disabled":
            self._record = Path(self._experiment.dir).parent
            records = (self._run.folder.absolute() / "wandb").glob(f"*run-*-{self._run.id}*")
            self._earlier = [path for path in records if path.name != self._record.name and path.is_dir()]
        self._url = None if self._experiment.offline else self._experiment.url
        self._first_step = self._experiment.starting_step
        _define_charts(self._experiment)
        if self._url is None and mode != "disabled":
            print(f"W&B is offline{f': {reason}' if reason else ''}. To send it: {self.address}")

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
                **self._timeouts,
                finish_timeout_raises=True,
                quiet=True,
                silent=mode != "online",
                show_emoji=False,
                console="off",  # the progress bar would fill the log with its redraws
            ),
        )

    def _safely(self, act: Callable[[Any], None]) -> None:
        """Do something with the W&B run; what goes wrong with it there does not concern the training."""
        experiment = self.experiment
        if experiment is None:
            return
        try:
            act(experiment)
        # Whatever befalls W&B's client, its process or the disk it writes to: seen were its own errors,
        # OSError when its process had died, and TypeError from its encoder.
        except Exception as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._over, self._experiment, self._url = True, None, None
        self._told = None  # the earlier records may be all there is of the story
        command = f" To send what there is: {self.address}" if self.address else ""
        reason = (str(error).splitlines() or [""])[0]
        self._run.say(
            f"W&B records no more ({type(error).__name__}: {reason}); training goes on, and metrics.csv "
            f"has its numbers.{command}"
        )

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add to the run's configuration, with the environment of this start."""
        told = meaningful(vars(params) if isinstance(params, Namespace) else params)
        told["environment"] = environment()
        self._safely(lambda experiment: experiment.config.update(told, allow_val_change=True))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record a point of each scalar."""
        self._safely(lambda experiment: self._log(experiment, dict(metrics), step))
        if self._told is not None and time.monotonic() - self._told > FLUSHED_S:
            self._put_aside()

    def _log(self, experiment: Any, row: dict[str, Any], step: int | None) -> None:
        # Steps are images. The server has those before the first already: from a start that got further
        # than its last checkpoint.
        if step is None or step >= self._first_step:
            experiment.log(row, step=step)

    @rank_zero_only
    def replay(self, rows: list[dict[str, str]], images: int) -> None:
        """Record again what earlier starts recorded and this record lacks: offline, all of it.

        Then the earlier records are superseded, and put aside once this one is on the disk.

        Args:
            rows: the scalars so far, as `metrics.csv` has them.
            images: seen so far; what came later comes again.
        """
        self._safely(lambda experiment: self._tell(experiment, rows, images))

    def _tell(self, experiment: Any, rows: list[dict[str, str]], images: int) -> None:
        import wandb

        story: dict[int, dict[str, Any]] = {}
        for row in rows:
            scalars = {key: float(value) for key, value in row.items() if value and key != "images"}
            story[int(row["images"])] = scalars
        for path in sorted(self._run.samples.glob("kimg-*.png")):
            step = round(float(path.stem.removeprefix("kimg-")) * 1000)
            if step <= images and self._is_due("samples/fakes", step) and step >= self._first_step:
                story.setdefault(step, {X_AXIS: step / 1000})["samples/fakes"] = wandb.Image(str(path))
        reals = self._run.samples / "reals.png"
        if reals.exists() and self._first_step == 0:
            story.setdefault(0, {X_AXIS: 0.0})["samples/reals"] = wandb.Image(str(reals))
        for step in sorted(story):
            self._log(experiment, story[step], step)
        if self._first_step == 0 and self._artifacts == "all":
            kept = sorted(self._run.checkpoints.glob("kimg-*.ckpt"))
            numbers = [float(path.stem.removeprefix("kimg-")) for path in kept]
            self._send(experiment, {path: [f"kimg-{n:g}"] for path, n in zip(kept, numbers, strict=True)})
        self._told = time.monotonic()

    def _put_aside(self) -> None:
        """Move the earlier records where `wandb sync` does not look."""
        self._told = None
        aside = self._run.folder / "wandb" / "superseded"
        with suppress(OSError):  # it is only tidied up
            aside.mkdir(exist_ok=True)
            for number, path in enumerate(self._earlier, sum(1 for _ in aside.iterdir())):
                path.rename(aside / f"{number:03d}-{path.name}")

    @rank_zero_only
    def log_picture(self, key: str, pixels: Pixels, step: int) -> None:
        """Record a picture at the images seen, unless one of its kind was shown a moment ago."""
        import wandb

        def log(experiment: Any) -> None:
            # A large grid takes W&B seconds to compress: the one that was saved just now takes a tenth.
            saved = self._run.samples / f"kimg-{step / 1000:010.3f}.png"
            if key == "samples/fakes" and saved.exists():
                picture = wandb.Image(str(saved))
            else:
                picture = wandb.Image(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels)
            self._log(experiment, {key: picture, X_AXIS: step / 1000}, step)

        if step >= self._first_step and self._is_due(key, step):
            self._safely(log)

    def _is_due(self, key: str, step: int) -> bool:
        """Whether a picture of this kind should be shown now; from one start to the next alike."""
        if key in self._shown and step // self._period <= self._shown[key] // self._period:
            return False
        self._shown[key] = step
        return True

    @rank_zero_only
    def log_checkpoint(self, path: Path, aliases: Sequence[str]) -> None:
        """Record a checkpoint as an artifact: one that stays at once, one that is replaced at the end."""
        wanted = {"none": (), "latest": ("latest",), "best": ("best",), "all": ("latest", "best")}
        if set(aliases) & {"latest", "best"}:
            if set(aliases) & set(wanted[self._artifacts]):
                self._to_send[path] = list(aliases)
        elif self._artifacts == "all":
            self._safely(lambda experiment: self._send(experiment, {path: aliases}))

    def _send(self, experiment: Any, checkpoints: Mapping[Path, Sequence[str]]) -> None:
        """Record checkpoints as artifacts, aside: W&B asks its server first, and waits for the answer."""
        import wandb

        def send() -> None:
            try:
                for path, aliases in checkpoints.items():
                    artifact = wandb.Artifact(f"checkpoint-{self._run.id}", type="model")
                    # Immutable: W&B reads the file where it is, instead of a copy that it would keep.
                    artifact.add_file(str(path.absolute()), name="checkpoint.ckpt", policy="immutable")
                    experiment.log_artifact(artifact, aliases=list(aliases))
            except Exception as error:  # see _safely
                reason = (str(error).splitlines() or [""])[0]
                self._run.say(f"W&B took no checkpoint ({type(error).__name__}: {reason}); the files stay")

        self._sending.append(threading.Thread(target=send, daemon=True))
        self._sending[-1].start()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run: what is left goes to the server, or to the disk.

        Args:
            status: success; stopped, if it was asked to and will go on; else it failed.
        """
        if self._experiment is not None:
            self._safely(lambda experiment: self._finish(experiment, status))
        self._over, self._experiment = True, None

    def _finish(self, experiment: Any, status: str) -> None:
        deadline = time.monotonic() + self._timeouts["finish_timeout"]
        for thread in self._sending:
            thread.join(max(0.0, deadline - time.monotonic()))
        # The one that is sent last becomes W&B's own `latest`.
        self._send(experiment, dict(sorted(self._to_send.items(), key=lambda entry: "latest" in entry[1])))
        self._sending[-1].join(max(0.0, deadline - time.monotonic()))
        if status == "stopped":
            experiment.mark_preempting()
        try:
            experiment.finish(exit_code=0 if status == "success" else 1)
        except TimeoutError:
            self._url = None
            seconds = self._timeouts["finish_timeout"]
            self._run.say(f"W&B took not all within {seconds:g} s. To send it: {self.address}")
        if self._told is not None:
            self._put_aside()


def _define_charts(experiment: Any) -> None:
    experiment.define_metric(X_AXIS)
    for chart in CHARTS:
        summary = "min,last" if chart in LESS_IS_BETTER else None
        name = chart if "/" in chart else f"{chart}/*"
        experiment.define_metric(name, step_metric=X_AXIS, summary=summary)


def has_wandb_key() -> bool:
    """Whether W&B would find an API key without asking: in the environment or in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _short(path: Path) -> str:
    """A path as seen from here, where that is shorter."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
