"""`kaleidogan COMMAND key=value ...`: every command is a function, configured in `conf/COMMAND.yaml`."""

import math
import multiprocessing
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from kaleidogan import commandline, config, sweeps
from kaleidogan.training import signals
from kaleidogan.training.place import find_place
from kaleidogan.training.runs import name_prefix

COMMANDS = {
    "train": "train a GAN on pictures, or go on with a run",
    "generate": "make pictures with a trained one",
    "collect": "gather public-domain pictures from museums or a list of addresses",
    "prepare": "turn a heap of pictures into shards to train from",
    "runs": "list the runs: how far they are, how good, and what differs",
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
    if {"-m", "--multirun"} & set(flags):
        _sweep(command, flags, overrides, program)
    else:
        _hand_to_hydra(command, flags, overrides, program)


def _hand_to_hydra(command: str, flags: Sequence[str], overrides: Sequence[str], program: str) -> None:
    if command == "train" and "SLURM_JOB_ID" in os.environ:
        signals.listen()  # a job that is to be requeued may be told so before it has begun
    import hydra

    # Hydra would build its own callbacks from any target, before the allow-list is asked.
    sys.argv = [program, *flags, *overrides, "hydra.callbacks='${oc.create:{}}'"]
    hydra.main(version_base="1.3", config_path=str(config.CONF), config_name=command)(call)()


def _sweep(command: str, flags: Sequence[str], overrides: Sequence[str], program: str) -> None:
    """Start the jobs, whatever becomes of one, and say at the end what became of each."""
    from hydra.errors import HydraException

    if (size := find_place().size) > 1:
        _fail(
            f"-m would begin {size} sweeps, one on each rank: start it once, with trainer.devices={size} for "
            "jobs of several ranks, or with launcher=slurm"
        )
    show_all, problem = os.environ.get("HYDRA_FULL_ERROR"), ""
    keys = [o.partition("=")[0] for o in overrides]
    # To a sweeper, the last of two that set one key may not be the one that counts.
    overrides = [o for place, o in enumerate(overrides) if o.partition("=")[0] not in keys[place + 1 :]]
    try:
        sweep, jobs = sweeps.plan(overrides)
        if set(flags) <= {"-m", "--multirun"}:
            _refuse_what_no_job_can_mean(command, overrides, jobs)
    except (HydraException, config.ConfigError) as error:
        _fail(str(error))
    chosen = [sweeps.value_of(o) for o in overrides if sweeps.key_of(o) == "hydra.sweep.dir"]
    sweep = replace(sweep, program=program)
    folder = sweeps.make_folder(sweep, Path(chosen[-1]) if chosen else None)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raises, where it would print a traceback
    # A launcher that waits for processes of its own has to end them, as it does on Ctrl-C.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        _hand_to_hydra(command, flags, [*overrides, f"hydra.sweep.dir='{folder}'"], program)
    except KeyboardInterrupt:
        problem = "interrupted"
    except Exception as error:  # a launcher's or a sweeper's own: the jobs' never leave `call`
        if show_all == "1":
            raise
        problem = str(error) if isinstance(error, HydraException) else f"{type(error).__name__}: {error}"
        if "No trials are completed" in problem:
            problem = "no job came to a value, so there is no best one"
    finally:
        signal.signal(signal.SIGTERM, before)
        os.environ.pop("HYDRA_FULL_ERROR")
        os.environ.update({"HYDRA_FULL_ERROR": show_all} if show_all else {})
        text, unfinished = sweeps.summarize(folder, 0 if sweeps.is_search(overrides) else len(jobs))
        print(text, flush=True)
    if problem:
        _fail(problem, status=130 if problem == "interrupted" else 1)
    if unfinished:
        sys.exit(1)


def _refuse_what_no_job_can_mean(
    command: str, overrides: Sequence[str], jobs: Sequence[Sequence[str]]
) -> None:
    """Check jobs until one can be meant: a mistyped key is no reason to wait in a queue for each to fail.

    Raises:
        ConfigError: what is wrong with the first.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf.errors import OmegaConfBaseException

    wrong = []
    with initialize_config_dir(str(config.CONF.absolute()), version_base="1.3"):
        for job in jobs:
            try:
                checked = _checked(compose(command, list(job)))
            except (config.ConfigError, OmegaConfBaseException) as error:
                wrong.append(error)
                continue
            if sweeps.is_search(overrides) and checked.get("optimized_metric", "") is None:
                raise config.ConfigError("a search needs what to optimise, e.g. optimized_metric=metric/swd")
            return
    raise config.ConfigError(str(wrong[0]))


def _checked(cfg: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return config.check({str(key): value for key, value in plain.items()})


def call(cfg: Any) -> Any:
    """Check a composed configuration and call the function that its target names."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        return _call_job(cfg, hydra)
    with told(str(cfg[config.TARGET]), bool(cfg.get("debug", False))):
        return _call(cfg, hydra)


def execute(settings: dict[str, Any], choices: dict[str, Any], overrides: list[str]) -> Any:
    """Call the function that a configuration's target names, as `call` did in the process that launched this.

    Args:
        settings: the configuration, in plain values.
        choices: the options that were chosen for each group.
        overrides: what the user typed.
    """
    with told(str(settings[config.TARGET]), bool(settings.get("debug", False))):
        return _execute(config.check(settings), choices, overrides)


def _execute(checked: dict[str, Any], choices: dict[str, Any], overrides: list[str]) -> Any:
    takes = config.read_signature(checked[config.TARGET]).parameters
    about = {"config": checked, "choices": choices, "overrides": overrides}
    arguments = {key: value for key, value in {**checked, **about}.items() if key in takes}
    return config.locate(checked[config.TARGET])(**arguments)


@contextmanager
def told(target: str, debug: bool) -> Iterator[None]:
    """Say an error on one screen and end with status 1."""
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
        _fail(f"{message}{hint}")


def _call(cfg: Any, hydra: Any, job: sweeps.Job | None = None) -> Any:
    checked, choices = _checked(cfg), dict(hydra.runtime.choices)
    if job is not None and "name" in checked:
        checked["name"] = job.take_run(checked["name"], name_prefix(checked["data"], choices))
    return _execute(checked, choices, [o for o in hydra.overrides.task if "hydra" not in o])


def _call_job(cfg: Any, hydra: Any) -> Any:
    """Call as one job of a sweep: however it ends is written down, and ends no other."""
    if multiprocessing.get_start_method(allow_none=True) == "loky":
        multiprocessing.set_start_method(None, force=True)  # joblib's own could not start the data's workers
    number = hydra.job.num
    job = sweeps.Job(Path(hydra.sweep.dir) / str(number), list(hydra.overrides.task))
    sys.argv[0] = job.program  # which a launcher's own may be, and messages name
    if "SLURM_JOB_ID" in os.environ:
        signals.listen()
    chooses = not hydra.sweeper._target_.endswith("BasicSweeper")
    try:
        result = _call(cfg, hydra, job)
        if chooses and result is not None and not math.isfinite(result):
            raise ValueError(f"optimized_metric is {result} at the end")
    except (SystemExit, KeyboardInterrupt) as end:
        job.record("stopped", f"status {end.code}" if isinstance(end, SystemExit) else "interrupted")
        raise
    except Exception as error:
        message = explain(error)
        if cfg.get("debug", False) or message is None:
            traceback.print_exc()
        message = message or f"{type(error).__name__}: {error}"
        print(f"Error in job {number}: {message}", file=sys.stderr, flush=True)
        job.record("failed", message)
        job.discard()
        if find_place().size > 1:
            sys.exit(1)  # so that whoever started the ranks ends the others
        if chooses:
            raise JobFailedError(message) from None
        return None
    job.record("finished")
    return result


class JobFailedError(RuntimeError):
    """A job of a search ended with an error that was shown: to its sweeper a value that is not there."""


def explain(error: Exception) -> str | None:
    """Say an error on one screen, with the remedy; None if it is not one that a user can mend."""
    from omegaconf.errors import OmegaConfBaseException

    text = str(error)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", text, re.I):
        return (
            f"out of memory: {first}\nlower batch_size, or play it in parts with accumulate=2 (or 4 ...), "
            "or lower model.width (model.channel_max) or resolution; the last checkpoint is good"
        )
    if isinstance(error, RuntimeError) and re.search("gloo|nccl|ProcessGroup", text, re.I):
        return (
            "another rank of this training ended, or did not answer within trainer.timeout seconds; the last "
            "checkpoint is good"
        )
    if re.search(r"DataLoader worker .*(killed|exited unexpectedly)", text):
        return f"a data worker died: {first}\nthe last checkpoint is good; start again to go on"
    if "in DataLoader worker" in text:
        # The worker's own error, whose traceback PyTorch puts before it.
        return text.strip().splitlines()[-1].partition(": ")[2]
    return text if isinstance(error, ValueError | OSError | MemoryError | OmegaConfBaseException) else None


def _fail(message: str, status: int = 1) -> NoReturn:
    sys.stdout.flush()
    rank = find_place().rank
    print(f"Error{f' on rank {rank}' * (rank > 0)}: {message}", file=sys.stderr)
    sys.exit(status)
