"""Configuration: compose with Hydra, check against the signatures in the code, build from an allow-list.

A default lives once, in the signature of the class or function that a `_target_` names; YAML says only what
differs. Signatures are read from the source text, so that a mistyped key is answered before PyTorch is
imported, which takes ten seconds.
"""

import ast
import difflib
import functools
import importlib
import importlib.util
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic

from kaleidogan import settings

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"
"""Inside of an installed wheel, or beside `src` in a checkout."""
TARGETS = ("kaleidogan.", "pytorch_lightning.callbacks.", "pytorch_lightning.profilers.")
"""A `_target_` begins with one of these, and is defined, not only imported, where it points."""
TARGET = "_target_"
SUPPLIED = {"run", "folder", "callbacks", "loggers", "trained", "config", "choices", "overrides"}
"""Parameters that the program fills in itself, wherever a signature has them."""
REQUIRED = object()
COMPUTED = object()
"""A default that only running the code would tell."""


class ConfigError(ValueError):
    """The configuration is wrong; the message names each key, its value and the remedy."""


@dataclass(frozen=True)
class Parameter:
    """One keyword of a signature: its type, default and line of documentation."""

    name: str
    type: Any
    default: Any
    doc: str = ""

    @property
    def takes_none(self) -> bool:
        """Whether null is a value of its own here."""
        return self.type is Any or type(None) in typing.get_args(self.type)

    @property
    def takes_nodes(self) -> bool:
        """Whether this is a part of the configuration with targets of its own."""
        return dict[str, Any] in (self.type, *typing.get_args(self.type))


@dataclass(frozen=True)
class Signature:
    """What a target takes, and its docstring's first lines."""

    target: str
    doc: str
    parameters: dict[str, Parameter] = field(default_factory=dict)

    @property
    def settings(self) -> list[str]:
        """The parameters that a configuration may set."""
        return [n for n, p in self.parameters.items() if n not in SUPPLIED or p.default is not REQUIRED]


def check(node: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Check a composed configuration and fill in every default.

    A node with a `_target_` is checked against that signature, and any other mapping node by node. A null
    where the signature has no None means the default.

    Args:
        node: plain values.
        path: where the node stands, for the messages.

    Returns:
        The node with values of the types that the signatures ask for.

    Raises:
        ConfigError: lists all that is wrong.
    """
    problems: list[str] = []
    checked = _check_node(node, path, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return checked


def _check_node(node: Mapping[str, Any], path: str, problems: list[str]) -> dict[str, Any]:
    if TARGET not in node:
        return _check_group(node, path, problems)
    try:
        signature = read_signature(str(node[TARGET]))
    except ConfigError as error:
        problems.append(f"{path}.{TARGET}: {error}".lstrip("."))
        return {}
    checked: dict[str, Any] = {TARGET: node[TARGET]}
    # Plain values first: a wrong one that is passed on to the parts is reported where it was typed.
    for key, value in sorted(node.items(), key=lambda entry: isinstance(entry[1], Mapping)):
        where = f"{path}.{key}" if path else str(key)
        parameter = signature.parameters.get(str(key))
        if key == TARGET:
            continue
        if parameter is None or (path and key in SUPPLIED):
            ours = [
                n for n, p in signature.parameters.items() if n not in SUPPLIED or p.default is not REQUIRED
            ]
            problems.append(_unknown(where, str(key), path, ours))
        elif isinstance(value, Mapping) and (TARGET in value or parameter.takes_nodes):
            checked[str(key)] = _check_node(value, where, problems)
        elif value is not None or parameter.takes_none or parameter.default is REQUIRED:
            checked[str(key)] = _convert(value, parameter, where, problems)
    for name, parameter in signature.parameters.items():
        if name not in checked and name not in SUPPLIED and name not in node:
            if parameter.default is REQUIRED:
                problems.append(_missing(f"{path}.{name}".lstrip("."), parameter))
            elif parameter.default is not COMPUTED:
                checked[name] = parameter.default
        elif name not in checked and name in node and parameter.default not in (REQUIRED, COMPUTED):
            checked[name] = parameter.default
    return checked


def _check_group(node: Mapping[str, Any], path: str, problems: list[str]) -> dict[str, Any]:
    """Check a mapping of named nodes, such as the callbacks."""
    checked = {}
    for key, value in node.items():
        where = f"{path}.{key}"
        if value is None:
            continue
        if isinstance(value, Mapping) and TARGET in value:
            checked[str(key)] = _check_node(value, where, problems)
        else:
            problems.append(_unknown(where, str(key), path, [str(name) for name in node if name != key]))
    return checked


def _missing(where: str, parameter: Parameter) -> str:
    return f"{where} is not set: {parameter.doc or 'it has no default'} Write {where}=VALUE"


def _unknown(where: str, key: str, path: str, valid: list[str]) -> str:
    near = nearest(key, valid)
    prefix = f"{path}." if path else ""
    hint = f"did you mean {prefix}{near}?" if near else f"valid here: {', '.join(sorted(valid)) or 'nothing'}"
    return f"there is no key {where}; {hint}"


def nearest(word: str, valid: list[str]) -> str | None:
    """The valid word that looks most like a mistyped one, if any does."""
    return next(iter(difflib.get_close_matches(word, valid, n=1, cutoff=0.5)), None)


def _convert(value: Any, parameter: Parameter, where: str, problems: list[str]) -> Any:
    """Check one value against its type, and turn an integer into the float that is meant."""
    kinds, shown = (parameter.type, *typing.get_args(parameter.type)), value
    if isinstance(value, str) and {typing.get_origin(kind) for kind in kinds} & {tuple, list}:
        value = [value]  # one word where several may stand
    try:
        return _adapter(parameter.type).validate_python(value)
    except pydantic.ValidationError as error:
        if value is None:
            problems.append(_missing(where, parameter))
            return None
        allowed, given = _words(parameter.type), value if isinstance(value, list) else [value]
        entries = error.errors()
        if isinstance(value, list):
            # Where a word is wrong, it is not because it should be one.
            entries = [entry for entry in entries if entry["type"] == "literal_error"] or entries
        reasons = dict.fromkeys(entry["msg"].removeprefix("Value error, ") for entry in entries)
        says = " or ".join(reason[0].lower() + reason[1:] for reason in reasons)
        wrong = next((str(word) for word in given if str(word) not in allowed), "")
        near = nearest(wrong, allowed)
        problem = f"{where}={shown}: {says}" + (f"; did you mean {near}?" if near else "")
        # What is passed on to a part is reported where it was typed.
        if not any(problem == known or problem.endswith(f".{known}") for known in problems):
            problems.append(problem)
        return None


def _words(type_: Any) -> list[str]:
    """The words that a setting may be, alone or in a list."""
    if typing.get_origin(type_) is typing.Literal:
        return [str(option) for option in typing.get_args(type_)]
    return [word for part in typing.get_args(type_) for word in _words(part)]


@functools.cache
def _adapter(type_: Any) -> Any:
    return pydantic.TypeAdapter(
        type_, config=pydantic.ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)
    )


@functools.cache
def read_signature(target: str) -> Signature:
    """Read what a target takes from its source text, without importing it.

    Raises:
        ConfigError: if the target is not allowed, or is not defined where it points.
    """
    if not target.startswith(TARGETS):
        raise ConfigError(f"'{target}' is not allowed; a target begins with {' or '.join(TARGETS)}")
    module, _, name = target.rpartition(".")
    path = _source(module)
    tree = ast.parse(path.read_text(encoding="utf-8")) if path else ast.Module([], [])
    found = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name]
    if not found:
        raise ConfigError(f"'{target}' is not a class or function that is defined in {module}")
    node = found[0]
    function = node
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        function = inits[0] if inits else node
    text = ast.get_docstring(node) or ""
    parameters = (
        _parameters(function.args, _constants(tree), read_docs(text))
        if isinstance(function, ast.FunctionDef)
        else {}
    )
    return Signature(target, text, parameters)


def _source(module: str) -> Path | None:
    """Find a module's file without importing the packages that it lies in."""
    root, *rest = module.split(".")
    spec = importlib.util.find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _constants(tree: ast.Module) -> dict[str, Any]:
    """A module's names for plain values, which a default may refer to."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _literal(node.value, {})
            if value is not COMPUTED:
                found[node.targets[0].id] = value
    return found


def _literal(node: ast.expr, constants: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name) and node.id in constants:
        return constants[node.id]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED


def _parameters(
    args: ast.arguments, constants: Mapping[str, Any], docs: Mapping[str, str]
) -> dict[str, Parameter]:
    plain = [arg for arg in [*args.posonlyargs, *args.args] if arg.arg != "self"]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(args.defaults))
    defaults += args.defaults[-len(plain) :] if plain else []
    found = {}
    for arg, default in [
        *zip(plain, defaults, strict=True),
        *zip(args.kwonlyargs, args.kw_defaults, strict=True),
    ]:
        value = REQUIRED if default is None else _literal(default, constants)
        found[arg.arg] = Parameter(arg.arg, _type(arg.annotation), value, docs.get(arg.arg, ""))
    return found


class _Names(dict[str, Any]):
    """The names that a setting's type may use; any other stands for something that is not checked."""

    def __missing__(self, name: str) -> Any:
        return Any


_NAMES = _Names(
    {name: getattr(typing, name) for name in ("Any", "Literal", "Annotated", "Union", "Optional")}
    | {t.__name__: t for t in (int, float, str, bool, list, tuple, dict)}
    | {name: value for name, value in vars(settings).items() if not name.startswith("_")}
)


def _type(annotation: ast.expr | None) -> Any:
    if annotation is None:
        return Any
    try:
        return eval(compile(ast.Expression(annotation), "annotation", "eval"), {"__builtins__": {}}, _NAMES)
    except (AttributeError, TypeError):
        return Any  # a type of another library, such as nn.Module: nothing that YAML could hold


def read_docs(docstring: str) -> dict[str, str]:
    """The lines of a Google docstring's `Args:`, by argument."""
    docs: dict[str, str] = {}
    name, inside = "", False
    for line in docstring.splitlines():
        indent = len(line) - len(line.lstrip())
        if not indent and line:
            inside = line.startswith("Args:")
        elif inside and indent == 4 and ":" in line:
            name, _, text = line.strip().partition(":")
            docs[name] = text.strip()
        elif inside and name and line.strip():
            docs[name] += f" {line.strip()}"
    return docs


def build(node: Any, **supplied: Any) -> Any:
    """Build what a checked node describes: targets are called with their built arguments.

    Args:
        node: as `check` returns it.
        supplied: arguments for each target that takes one of that name.
    """
    if not isinstance(node, Mapping):
        return node
    if TARGET not in node:
        return {key: build(value, **supplied) for key, value in node.items()}
    takes = read_signature(node[TARGET]).parameters
    arguments = {key: build(value, **supplied) for key, value in node.items() if key != TARGET}
    return locate(node[TARGET])(**arguments, **{k: v for k, v in supplied.items() if k in takes})


def locate(target: str) -> Any:
    """Import what a target names.

    Raises:
        ConfigError: if the target is not allowed, or is not defined where it points.
    """
    read_signature(target)
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)
