"""One TOML file per model: [spec] is the ModelSpec, [model] the networks, [data] samples and labels, [train] losses and
schedule, [augment] random changes, [teacher] and [distill] the distillation.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import sys
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.sources.folder.values import LARGEST
from imkd_edge.spec import ModelSpec
from imkd_edge.training.config_checks import disagreements
from imkd_edge.training.sections import (
    CHOICES,
    POSITIVE,
    SECTIONS,
    SHARES,
    AugmentConfig,
    DataConfig,
    DistillConfig,
    ModelConfig,
    TeacherConfig,
    TrainConfig,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Type of a key -> what a file has there.
IN_TOML = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: 'a text in quotes ("")',
    list: "a list in brackets ([])",
    dict: "a table",
}
CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Config:
    """A TOML file merged over its base, checked by from_dict."""

    name: str
    spec: ModelSpec
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    augment: AugmentConfig
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)

    def to_dict(self) -> dict[str, Any]:
        """The tree that from_dict reads, as stored in checkpoints."""
        sections = {k: asdict(getattr(self, k)) for k in SECTIONS}
        return {"name": self.name, "spec": json.loads(self.spec.to_json()), **sections}


def _section(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise Error(Code.train_config, f"{values!r} is not a table", where, "write a TOML table")
    known = {f.name: f for f in fields(cls)}
    for key, value in values.items():
        if key not in known:
            raise _unknown("key", key, known, where)
        default = known[key].default
        if default is MISSING:
            default = known[key].default_factory()  # type: ignore[operator,misc]
        expected = type(default)
        if expected is float and type(value) is int:
            value = float(value) if abs(value) < LARGEST else math.inf
        if type(value) is not expected:
            raise Error(Code.train_config, f"'{key}' is {value!r}", where, f"write {IN_TOML[expected]}")
        if expected in (int, float):
            _check_number(key, value, where)
    return cls(**values)


def _unknown(what: str, name: str, known: Iterable[str], where: str) -> Error:
    """The error of an unknown key or section, which names the nearest known one and all others."""
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    fix = (f"did you mean '{near[0]}'? " if near else "") + f"known {what}s: " + ", ".join(sorted(known))
    return Error(Code.train_config, f"unknown {what} '{name}'", where, fix)


def _check_number(key: str, value: float, where: str) -> None:
    """Raises Error train_config for a number that is not finite, negative, 0 in POSITIVE, or above 1 in SHARES."""
    low, high = ("more than 0" if key in POSITIVE else "at least 0"), (", at most 1" if key in SHARES else "")
    if not value < LARGEST or value < 0 or (value == 0 and key in POSITIVE) or (value > 1 and key in SHARES):
        raise Error(Code.train_config, f"'{key}' is {value!r}", where, f"it must be finite, {low}{high}")


def from_dict(tree: dict[str, Any], where: str) -> Config:
    """Checks a tree and makes a Config of it.

    Args:
        tree: {"name", "spec", and any of SECTIONS}.
        where: file or other origin, for error messages.

    Raises:
        Error: spec_* for [spec], train_config for the rest.
    """
    for key in tree:
        if key not in {"name", "spec", *SECTIONS}:
            raise _unknown("section", key, ("name", "spec", *SECTIONS), where)
    if "spec" not in tree or not isinstance(tree.get("name"), str):
        raise Error(Code.train_config, "name or [spec] is missing", where, "start from a file of training/configs")
    try:
        spec = ModelSpec.from_json(json.dumps(tree["spec"]))
    except Error as error:  # which names the key alone
        raise Error(error.code, error.what, f"{where} [spec] {error.where}", error.fix) from None
    except (TypeError, ValueError) as error:  # a date or a time
        raise Error(
            Code.train_config, str(error), f"{where} [spec]", "write numbers, texts and lists of them"
        ) from None
    sections = {k: _section(cls, tree.get(k, {}), f"{where} [{k}]") for k, cls in SECTIONS.items()}
    for (section, key), known in CHOICES.items():
        value = getattr(sections[section], key)
        if not value or any(choice not in known for choice in (value if isinstance(value, list) else [value])):
            fix = "choose one of: " + ", ".join(known)
            raise Error(Code.train_config, f"{key} = {value!r}", f"{where} [{section}]", fix)
    config = Config(name=tree["name"], spec=spec, **sections)
    for problem, fix in disagreements(config):
        raise Error(Code.train_config, problem, where, fix)
    return config


def load_config(name: str | Path, changes: Iterable[str] = ()) -> Config:
    """Loads a TOML file, or a shipped one by name; `base = "other"` supplies every key that the file lacks.

    Args:
        name: path, or the name of a shipped config.
        changes: of keys, such as "train.epochs=3"; see `changed_tree`.

    Raises:
        Error: train_config (unknown key, wrong type, missing file), spec_* (bad [spec]).
    """
    tree, path = read_tree(name)
    changes = list(changes)
    return from_dict(changed_tree(tree, changes), f"{path} with --set {' '.join(changes)}" if changes else str(path))


def changed_tree(tree: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """A tree with other values, each "SECTION.KEY=VALUE" with a value in TOML; a bare word is text.

    Raises: Error train_config for another form, or a section or key that no config has.
    """
    for change in changes:
        path, equals, text = change.partition("=")
        section, *keys = path.strip().split(".")
        where = f"--set {change}"
        if not equals or (not keys and section != "name") or not all(keys):
            fix = "write for example --set train.epochs=3"
            raise Error(Code.train_config, f"{change!r} is not SECTION.KEY=VALUE", "--set", fix)
        if section not in {"name", "spec", *SECTIONS}:
            raise _unknown("section", section, ("name", "spec", *SECTIONS), where)
        known = [f.name for f in fields(SECTIONS[section])] if section in SECTIONS else keys
        if keys and keys[0] not in known:
            raise _unknown("key", keys[0], known, where)
        value = _toml_value(text.strip())
        for key in reversed([section, *keys]):
            value = {key: value}
        tree = merged(tree, value)
    return tree


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def read_tree(
    name: str | Path, folder: Path = CONFIGS, visited: frozenset[Path] = frozenset()
) -> tuple[dict[str, Any], Path]:
    """Reads a TOML file and merges it over its base.

    Args:
        name: path, or without a suffix the name of a file in `folder`.
        folder: of the shipped files.
        visited: files that have this one as their base, to detect a loop.

    Returns:
        The tree and the path.

    Raises:
        Error: train_config.
    """
    path = Path(name)
    if not path.suffix:
        path = folder / f"{name}.toml"
    if not os.path.isfile(path) or path in visited:  # Path.is_file raises for a name that is too long
        names = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        if os.path.isdir(name):
            fix = f"write one that fits these recordings: imkd-edge init {name} --out {Path(name).name}.toml"
            raise Error(Code.train_config, "it is a folder, and a config is a TOML file", str(name), fix)
        problem = f"'{name}' is its own base" if path in visited else f"there is no '{name}'"
        raise Error(Code.train_config, problem, str(path), f"name a .toml file, or a shipped one: {names}")
    try:
        tree = tomllib.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # of the text, the syntax, or a number of 5000 digits
        raise Error(Code.train_config, f"not TOML: {error}", str(path), "correct the syntax") from error
    if "base" in tree:
        if not isinstance(tree["base"], str):
            fix = "name a shipped config or a TOML file"
            raise Error(Code.train_config, f"base is {tree['base']!r}", str(path), fix)
        tree = merged(read_tree(tree.pop("base"), folder, visited | {path})[0], tree)
    return tree, path


def merged(base: Any, change: Any) -> Any:
    """`base` with the values of `change`, table by table."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
