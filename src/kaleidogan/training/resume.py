"""Going on: what may differ from the checkpoint, and what may not."""

from collections.abc import Iterable
from typing import Any

import torch

from kaleidogan.config import TARGET
from kaleidogan.training.checkpoint import Checkpoint

FREE = (
    "name",
    "kimg",
    "resume",
    "allow_changes",
    "debug",
    "tick_kimg",
    "checkpoint_kimg",
    "optimized_metric",
    "optimized_direction",
    "callbacks",
    "logger",
    "trainer",
    "compile",
    "model.kimg",
    "data.path",
    "data.root",
    "data.num_workers",
    "data.on_error",
    "data.max_lost",
    "data.decoded",
    "data.cache",
    "data.cache_gb",
    "data.timeout",
    "data.retries",
    "data.pipe",
)
"""Settings that do not enter the arithmetic; the data is told by its fingerprint, wherever it lies."""


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Name each leaf of a nested configuration by its dotted key."""
    if not isinstance(value, dict):
        return {key: value}
    found: dict[str, Any] = {}
    for name, entry in value.items():
        if name == TARGET:  # the class counts, not the file that it is in
            entry = str(entry).rpartition(".")[2]
        found |= flatten(entry, f"{key}.{name}" if key else str(name))
    return found


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ and matter: the old and the new value by dotted key."""
    old, new = flatten(before), flatten(now)
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _is_within(key, FREE)
    }


def _is_within(key: str, keys: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in keys)


def check_changes(checkpoint: Checkpoint, config: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuse to go on with other settings than the checkpoint's, unless they are named.

    Raises:
        ValueError: lists what differs, and how to allow it.
    """
    found = changes(checkpoint["config"], config)
    if models := found.get(f"model.{TARGET}"):
        raise ValueError(
            f"the checkpoint is that of a {models[0]}, not of a {models[1]}; choose another name="
        )
    # What is set at the top and passed on to the parts is one change.
    passed_on = {key for key in found if "." in key and found.get(key.rpartition(".")[2]) == found[key]}
    refused = {k: pair for k, pair in found.items() if not _is_within(k, allowed) and k not in passed_on}
    if refused:
        lines = [f"  {key}: {old} -> {new}" for key, (old, new) in refused.items()]
        raise ValueError(
            "the checkpoint was trained with other settings:\n"
            + "\n".join(lines)
            + f"\nset them back, choose another name=, or go on with allow_changes=[{','.join(refused)}]"
        )


def check_data(checkpoint: Checkpoint, fingerprint: str, allowed: tuple[str, ...]) -> None:
    """Refuse to go on with other pictures than the checkpoint's, unless `data` is allowed to change.

    Raises:
        ValueError: names both fingerprints.
    """
    if checkpoint["data"] != fingerprint and not _is_within("data", allowed):
        raise ValueError(
            f"the checkpoint was trained on other pictures (fingerprint {checkpoint['data'][:12]}, now "
            f"{fingerprint[:12]}); name the old ones, or go on with allow_changes=[data]"
        )


def notes(checkpoint: Checkpoint, precision: str, num_ranks: int) -> list[str]:
    """What will keep a continued run from being equal to the bit, though nothing forbids it."""
    said = []
    if (before := len(checkpoint["random"])) != num_ranks:
        said.append(
            f"ranks: {before} in the checkpoint, {num_ranks} now: the same pictures in the same batches, and "
            "other noise from here on"
        )
    for key, before, now in (
        ("processor threads", checkpoint["threads"], torch.get_num_threads()),
        ("precision", checkpoint["precision"], precision),
    ):
        if before != now:
            said.append(f"{key}: {before} in the checkpoint, {now} now: results differ in the last bits")
    return said
