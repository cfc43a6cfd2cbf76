"""The command line: what the user typed -> overrides that Hydra reads as they were meant, and `--help`."""

import importlib.util
import json
import os
import re
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from kaleidogan.config import (
    COMPUTED,
    CONF,
    REQUIRED,
    SUPPLIED,
    TARGET,
    ConfigError,
    Signature,
    nearest,
    read_signature,
)

FREE_TEXT = {
    *("text", "seeds", "path", "source", "out", "checkpoint", "resume", "name", "labels", "root"),
    *("captions", "cache", "list", "query", "contact", "base_url", "pattern", "group"),
}
"""The last word of the keys whose value is taken as it stands: Hydra's grammar would split a `=`, a comma,
a space or an apostrophe in it."""


PLUGINS = {
    "launcher=slurm": "hydra_submitit_launcher",
    "launcher=joblib": "hydra_joblib_launcher",
    "sweep=optuna": "hydra_optuna_sweeper",
}
"""The options that need one of Hydra's plugins, by its module; the extra has the option's name."""
BACKSLASH = "\\"
FOR_ONCE = {"name", "resume", "allow_changes", "debug", "launcher", "sweep"}
"""Settings of one start, which the next start of the same run does not take over."""


def script(name: str) -> str:
    """How the user runs one of the scripts at the top, to be named in messages."""
    return f"uv run {name}" if "UV_RUN_RECURSION_DEPTH" in os.environ else f"python {name}"


def options_of(group: str) -> list[str]:
    """The options of a configuration group: the YAML files in its folder."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def groups() -> list[str]:
    """The configuration groups: the folders of `conf/`."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def read_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into flags and overrides, with the overrides as Hydra needs them.

    `key=value` becomes `++key=value`: which keys there are is decided by the signatures, not by what YAML
    happens to list. Free text is quoted. A group's option is checked here, for a better answer.

    Raises:
        ConfigError: for an option that a group does not have, or an argument without `=`.
    """
    flags = [a for a in arguments if a.startswith("-")]
    for before, argument in pairwise(arguments):
        flags += [argument] if before in ("--cfg", "-c", "--package", "-p") else []
    sweeping = "-m" in flags or "--multirun" in flags
    if not sweeping and PLUGINS.keys() & set(arguments):
        sweeping = True  # of one job, if nothing differs
        flags.append("--multirun")
    overrides = []
    for argument in arguments:
        if argument in flags:
            continue
        key, equals, value = argument.partition("=")
        if argument.startswith("~"):
            overrides.append(argument)
        elif not equals:
            raise ConfigError(f"'{argument}' is neither a flag nor key=value; see --help")
        elif key in groups() or key.startswith(("hydra.", "hydra/", "+hydra", "++hydra")):
            _check_option(key, value, sweeping)
            overrides.append(argument)
        else:
            prefix = "" if key.startswith("+") else "++"
            overrides.append(f"{prefix}{key}={_quote(key, value, sweeping)}")
    return flags, overrides


def _check_option(group: str, value: str, sweeping: bool) -> None:
    if group not in groups() or value in ("null", ""):
        return
    valid = options_of(group)
    for option in value.split(",") if sweeping else [value]:
        if option not in valid:
            near = nearest(option, valid)
            hint = f"did you mean {group}={near}?" if near else f"there are: {', '.join(valid)}"
            raise ConfigError(f"{group}={option}: there is no such option; {hint}")
        plugin = PLUGINS.get(f"{group}={option}")
        if plugin is not None and not _is_installed(plugin):
            package = plugin.replace("_", "-")
            raise ConfigError(f"{group}={option} needs {package}: pip install kaleidogan[{option}]")


def _is_installed(plugin: str) -> bool:
    try:
        return importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:  # there is no plugin at all
        return False


def _quote(key: str, value: str, sweeping: bool) -> str:
    """Quote free text; in a sweep, a comma outside of quotes parts the values, but for seeds and texts."""
    word = key.lstrip("+").split(".")[-1]
    if word not in FREE_TEXT or value in ("", "null"):
        return value
    if sweeping and word not in ("seeds", "text"):
        return ",".join(_quote_one(part) for part in re.findall(r"(?:'[^']*'|\"[^\"]*\"|[^,])+", value))
    return _quote_one(value)


def _quote_one(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value
    # Backslashes are themselves but before a quote, where Hydra halves them; `${` would be looked up.
    escaped = re.sub(r"(\\*)'", lambda found: 2 * found[1] + "\\'", value.replace("${", "\\${"))
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{trailing * BACKSLASH}'"


def complete(overrides: list[str]) -> list[str]:
    """Add what a bare `train.py` means: the settings of the run that is named, or the first experiment."""
    if any(override.startswith(("model=", "data=", "experiment=")) for override in overrides):
        return overrides
    names = [o.partition("=")[2].strip("'") for o in overrides if o.lstrip("+").startswith("name=")]
    path = Path("runs") / names[-1] / "overrides.json" if names else None
    if path is None or not path.is_file():
        return [*overrides, "experiment=first_light"]
    before = json.loads(path.read_text(encoding="utf-8"))
    given = {_key(override) for override in overrides}
    return [*(o for o in before if _key(o) not in given and _key(o) not in FOR_ONCE), *overrides]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def header(path: Path) -> str:
    """What a YAML file says of itself: its first comment, after Hydra's own `@package`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("#").strip() for line in lines if not line.startswith("# @package"))


def help_text(command: str, program: str, overrides: Sequence[str]) -> str:
    """All that a command understands: its keys, the groups' options, and the chosen ones' keys."""
    conf = yaml.safe_load((CONF / f"{command}.yaml").read_text(encoding="utf-8"))
    signature = read_signature(conf[TARGET])
    lines = [signature.doc.splitlines()[0], "", f"  {program} [key=value ...] [--help]", ""]
    if example := header(CONF / f"{command}.yaml"):
        lines += [f"  e.g. {example}", ""]
    used = [d for d in conf.get("defaults", []) if isinstance(d, dict)]
    names = [str(key).split("/")[-1] for d in used for key in d if "hydra" not in str(key)]
    chosen, preset = _chosen({str(k): v for d in used for k, v in d.items()}, overrides)
    plain = {name: p for name, p in signature.parameters.items() if not p.takes_nodes}
    lines += ["Keys", *_key_lines(Signature("", "", plain), {**conf, **preset}), ""]
    for group in names:
        lines += [f"{group}=" + (f"  (default: {chosen[group]})" if chosen.get(group) else "")]
        for option in options_of(group):
            lines += [f"  {option:<14} {_clip(header(CONF / group / f'{option}.yaml'), 92)}"]
    lines += [""] if names else []
    for group in ("model", "data", "augment", "growth", "task", "callbacks"):
        given = {**(conf.get(group) or {}), **(preset.get(group) or {})}
        lines += _node_lines(group, chosen.get(group), given)
    return "\n".join(lines)


def _chosen(defaults: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each group's option, as the command line, the experiment, the model or the defaults choose it.

    Returns:
        The options by group, and what the experiment sets besides.
    """
    pairs = (override.partition("=") for override in overrides)
    typed = {key: value for key, _, value in pairs if key in groups()}
    by_experiment, preset = _read_option("experiment", typed.get("experiment"))
    known = {**defaults, **by_experiment, **typed}
    by_model, _ = _read_option("model", known.get("model"))
    return {**defaults, **by_model, **by_experiment, **typed}, preset


def _read_option(group: str, option: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of other groups that an option overrides, and its own content."""
    path = CONF / group / f"{option}.yaml"
    if not path.is_file():
        return {}, {}
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    entries = [d for d in content.pop("defaults", []) if isinstance(d, dict)]
    overridden = {str(key).split("/")[-1]: value for d in entries for key, value in d.items()}
    # An option that overrides others holds its own content under the group's name.
    return overridden, dict(content.get(group, content) or {})


def _node_lines(group: str, option: Any, given: dict[str, Any]) -> list[str]:
    """The keys of a chosen option: of its target, or of each of its parts."""
    _, node = _read_option(group, option)
    lines = []
    if TARGET in node:
        lines += _key_lines(read_signature(node[TARGET]), {**node, **given}, prefix=f"{group}.")
    for name, part in node.items():
        if isinstance(part, dict) and TARGET in part:
            values = {**part, **(given.get(name) or {})}
            lines += _key_lines(read_signature(part[TARGET]), values, prefix=f"{group}.{name}.")
    return [f"Keys of {group}={option}", *lines, ""] if lines else []


def _key_lines(signature: Signature, values: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name, parameter in signature.parameters.items():
        if name in SUPPLIED and name not in values:
            continue
        value = values.get(name, parameter.default)
        # What a part is given from the top is set at the top.
        if (isinstance(value, str) and value.startswith("${")) or isinstance(value, dict):
            continue
        start = f"  {prefix + name:<24} {_shown(value):<14} "
        text = textwrap.wrap(parameter.doc, 110 - 42) or [""]
        lines += [start + text[0], *(" " * 42 + more for more in text[1:])]
    return lines


def _shown(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, tuple | list):
        return f"[{','.join(_shown(entry) for entry in value)}]"
    words = {id(REQUIRED): "(needed)", id(COMPUTED): "(computed)", id(None): "null"}
    return words.get(id(value), str(value).lower() if isinstance(value, bool) else str(value))


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."
