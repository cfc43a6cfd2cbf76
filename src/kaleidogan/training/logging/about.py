"""What is told of a run beside its numbers: the settings that matter, words to find it by, the machine."""

import platform
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kaleidogan import __version__
from kaleidogan.config import TARGET
from kaleidogan.training import ranks, slurm

UNTOLD = {
    *("name", "resume", "allow_changes", "debug", "logger"),
    *("threads", "num_workers", "cache", "cache_gb", "root", "timeout", "retries"),
    *("pipe", "on_error", "max_lost"),
}
"""Settings of one start or one machine: no run is better by them."""
LONGEST_TAG = 64
"""W&B refuses longer ones."""


def meaningful(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings to compare runs by, nested as they are.

    Without what belongs to a start or a machine, without nulls, and without what stands at the top already
    and was only passed on to a part. A target is told by its class's name, an absolute path by its last part.
    """
    top = {key: _clean(value) for key, value in config.items() if key not in {*UNTOLD, TARGET}}
    for callback in (top.get("callbacks") or {}).values():
        callback.pop("class", None)  # as good as its name
    told = {}
    for key, value in top.items():
        if isinstance(value, dict):
            passed_on = {name for name, entry in value.items() if name in top and top[name] == entry}
            value = {k: v for k, v in value.items() if k not in passed_on and v != {}}
        if value is not None and value != {}:
            told[key] = value
    return told


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _clean(entry) for key, entry in value.items() if key not in UNTOLD and key != TARGET}
        kept = {key: entry for key, entry in kept.items() if entry is not None and entry != {}}
        name = str(value.get(TARGET, "")).rpartition(".")[2]
        return {"class": name, **kept} if name[:1].isupper() else kept
    if isinstance(value, list | tuple):
        return [_clean(entry) for entry in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value


def chosen_tags(config: Mapping[str, Any], choices: Mapping[str, Any]) -> list[str]:
    """The model, the data set, and the options that were chosen besides, as words."""
    path = (config.get("data") or {}).get("path")
    data = Path(path).name if path else choices.get("data")
    words = [choices.get("model"), data, *(choices.get(key) for key in ("augment", "growth", "experiment"))]
    found = [str(word)[:LONGEST_TAG] for word in words if word not in (None, "none", "null", "")]
    return list(dict.fromkeys(found))


def environment() -> dict[str, Any]:
    """The versions and the machine that this start runs with."""
    on_gpu = torch.cuda.is_available()
    found = {
        "kaleidogan": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if on_gpu else None,
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "ranks": ranks.size(),
        "host": socket.gethostname(),
        "slurm_job": slurm.job_id(),
    }
    return {key: value for key, value in found.items() if value is not None}
