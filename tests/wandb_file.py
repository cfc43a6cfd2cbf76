"""Reads a W&B run file: LevelDB's log format, around protocol buffers."""

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2

BLOCK = 32768
HEADER = 7


def records(path: Path) -> Iterator[Any]:
    """The records of a `.wandb` file, in order."""
    data = path.read_bytes()
    offset, parts = HEADER, b""  # the file begins with a magic of the length of a header
    while offset + HEADER <= len(data):
        if BLOCK - offset % BLOCK < HEADER:
            offset += BLOCK - offset % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[offset : offset + HEADER])
        parts += data[offset + HEADER : offset + HEADER + length]
        offset += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def read(path: Path) -> dict[str, Any]:
    """What a run is, its configuration, history and summary, once W&B's own process has written all of it."""
    wandb.teardown()
    found: dict[str, Any] = {"config": {}, "history": [], "metrics": {}, "summary": {}, "artifacts": []}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            about = record.run
            found |= {"id": about.run_id, "name": about.display_name, "group": about.run_group}
            found |= {"job_type": about.job_type, "tags": list(about.tags), "notes": about.notes}
            updates = record.run.config.update
        elif kind == "config":
            updates = record.config.update
        else:
            updates = []
        for item in updates:
            put(found["config"], [item.key] if item.key else item.nested_key, json.loads(item.value_json))
        if kind == "summary":
            for item in record.summary.update:
                put(
                    found["summary"], [item.key] if item.key else item.nested_key, json.loads(item.value_json)
                )
        if kind == "artifact":
            found["artifacts"].append((list(record.artifact.aliases), manifest(record.artifact)))
        if kind == "history":
            row = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            found["history"].append(row)
        if kind == "metric":
            found["metrics"][record.metric.name or record.metric.glob_name] = record.metric.step_metric
    return found


def put(tree: dict[str, Any], keys: Iterable[str], value: Any) -> None:
    *parents, last = keys
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def manifest(artifact: Any) -> dict[str, str]:
    """The files of an artifact, and where each is read from."""
    return {entry.path: entry.local_path for entry in artifact.manifest.contents}
