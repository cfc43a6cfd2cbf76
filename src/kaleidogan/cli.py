"""`kaleidogan COMMAND key=value ...`: every command is a function, configured in `conf/COMMAND.yaml`."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from kaleidogan import commandline, config
from kaleidogan.training import signals

COMMANDS = {
    "train": "train a GAN on pictures, or go on with a run",
    "generate": "make pictures with a trained one",
    "collect": "gather public-domain pictures from museums or a list of addresses",
    "prepare": "turn a heap of pictures into shards to train from",
    "verify": "read a data set as training would, and say what is lost",
}


def main() -> None:
    """Run the command that the first argument names."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in COMMANDS:
        run(command, arguments, program=f"kaleidogan {command}")
        return
    lines = [f"  kaleidogan {name:<10} {text}" for name, text in COMMANDS.items()]
    usage = "\n".join(["Commands, each with its own --help:", *lines])
    if command in ("-h", "--help", "help"):
        print(usage)
        return
    near = config.nearest(command, list(COMMANDS))
    _fail(f"there is no command '{command}'" + (f"; did you mean {near}?" if near else "") + f"\n{usage}")


def run(command: str, arguments: Sequence[str], program: str) -> None:
    """Compose the configuration with Hydra, check it, and call the command; errors end with status 1."""
    if {"-h", "--help"} & set(arguments):
        print(commandline.help_text(command, program, arguments))
        return
    try:
        flags, overrides = commandline.read_overrides(arguments)
    except config.ConfigError as error:
        _fail(str(error))
    if command == "train":
        overrides = commandline.complete(overrides)
    # Hydra has no word for a group that is left empty.
    overrides = [o for o in overrides if o.partition("=")[0] not in commandline.groups() or o[-5:] != "=null"]
    if command == "train" and "SLURM_JOB_ID" in os.environ:
        signals.listen()  # a job that is to be requeued may be told so before it has begun
    import hydra

    # Hydra would build its own callbacks from any target, before the allow-list is asked.
    sys.argv = [program, *flags, *overrides, "hydra.callbacks='${oc.create:{}}'"]
    hydra.main(version_base="1.3", config_path=str(config.CONF), config_name=command)(call)()


def call(cfg: Any) -> Any:
    """Check a composed configuration and call the function that its target names."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    job = hydra.job.num if hydra.mode == RunMode.MULTIRUN else None
    with told(str(cfg[config.TARGET]), bool(cfg.get("debug", False)), job):
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        assert isinstance(plain, dict)
        overrides = [o for o in hydra.overrides.task if "hydra" not in o]
        checked = config.check({str(key): value for key, value in plain.items()})
        if job is not None and checked.get("name"):
            checked["name"] += f"-{job:03d}"
        return _call(checked, dict(hydra.runtime.choices), overrides)


def execute(settings: dict[str, Any], choices: dict[str, Any], overrides: list[str]) -> Any:
    """Call the function that a configuration's target names, as `call` did in the process that launched this.

    Args:
        settings: the configuration, in plain values.
        choices: the options that were chosen for each group.
        overrides: what the user typed.
    """
    with told(str(settings[config.TARGET]), bool(settings.get("debug", False))):
        return _call(config.check(settings), choices, overrides)


def _call(checked: dict[str, Any], choices: dict[str, Any], overrides: list[str]) -> Any:
    takes = config.read_signature(checked[config.TARGET]).parameters
    about = {"config": checked, "choices": choices, "overrides": overrides}
    arguments = {key: value for key, value in {**checked, **about}.items() if key in takes}
    return config.locate(checked[config.TARGET])(**arguments)


@contextmanager
def told(target: str, debug: bool, job: int | None = None) -> Iterator[None]:
    """Say an error on one screen and end with status 1; or end the job alone, if it is one of a sweep."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except KeyboardInterrupt:
        _fail("interrupted; nothing is lost, and the same command begins again or goes on", status=130)
    except (ValueError, OSError, RuntimeError, MemoryError, OmegaConfBaseException) as error:
        message = explain(error)
        if debug or message is None:
            raise
        can_show = (
            not isinstance(error, config.ConfigError) and "debug" in config.read_signature(target).parameters
        )
        hint = "\n(debug=true shows where this comes from)" if can_show else ""
        if job is not None:
            print(f"Error in job {job}: {message}", file=sys.stderr)
            raise JobFailedError(message) from None
        _fail(f"{message}{hint}")


class JobFailedError(RuntimeError):
    """A job of a sweep ended with an error that was shown; the other jobs go on."""


def explain(error: Exception) -> str | None:
    """Say an error on one screen, with the remedy; None if it is not one that a user can mend."""
    text = str(error)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", text, re.I):
        return (
            f"out of memory: {first}\nlower batch_size, or play it in parts with accumulate=2 (or 4 ...), "
            "or lower model.width (model.channel_max) or resolution; the last checkpoint is good"
        )
    if re.search("Connection closed by peer|Connection reset by peer|Timed out waiting|ProcessGroup", text):
        return (
            "another rank of this training ended, or did not answer within trainer.timeout seconds; the last "
            f"checkpoint is good ({first})"
        )
    if re.search(r"DataLoader worker .*(killed|exited unexpectedly)", text):
        return f"a data worker died: {first}\nthe last checkpoint is good; start again to go on"
    if "in DataLoader worker" in text:
        # The worker's own error, whose traceback PyTorch puts before it.
        return text.strip().splitlines()[-1].partition(": ")[2]
    return None if isinstance(error, RuntimeError) else text


def _fail(message: str, status: int = 1) -> NoReturn:
    sys.stdout.flush()
    rank = os.environ.get("RANK", "0")
    print(f"Error{f' on rank {rank}' * (rank != '0')}: {message}", file=sys.stderr)
    sys.exit(status)
