"""A config as commented TOML."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
COMMENTS = {
    "": "Made by imkd-edge init from what the recordings hold; every value may be changed.",
    "spec": "What the runtime reads: sizes, grid, features, classes. It goes into the bundle.",
    "spec.cameras": "the most that a rig may have; fewer are padded",
    "spec.history": "fused maps of past frames",
    "spec.image": "input of the camera network",
    "spec.depth": "m along the optical axis",
    "spec.grid": "bird's-eye view in the ego frame, m",
    "spec.radar": "statistics of the returns in each cell: (value - offset) * scale",
    "spec.radar.max_age": "s; older sweeps are discarded",
    "spec.head.classes": "nms_radius in m; classes of a group share box channels",
    "model": "The networks.",
    "model.gates": "intensity-guided fusion; off where a teacher's weights are inherited",
    "data": "The recordings, and which of their labels are which class; other labels are background.",
    "train": "Schedule and losses.",
    "augment": "Random changes of the examples; 0 or false turns one off.",
    "teacher": "A network that sees LiDAR and radar is trained first; the student starts from its weights.",
    "distill": "",
}


def config_text(tree: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """A config tree as TOML.

    Args:
        tree: as from_dict reads it.
        notes: dotted key -> comment, beside those of COMMENTS.
    """
    lines = [f"# {COMMENTS['']}"]
    _table(tree, "", notes, lines)
    if "distill" not in tree:
        note = notes.get("distill", "no teacher: the recordings have no LiDAR")
        lines += ["", *_comment(note)]
    return "\n".join(lines).strip() + "\n"


def _table(tree: Mapping[str, Any], path: str, notes: Mapping[str, str], lines: list[str]) -> None:
    """Values first, then the tables among them, as TOML wants it."""
    for key, value in tree.items():
        if not isinstance(value, Mapping):
            lines += _entry(key, value, _join(path, key), notes)
    for key, value in tree.items():
        if not isinstance(value, Mapping) or (not value and key == "options"):
            continue
        name = _join(path, key)
        comment = "; ".join(text for text in (COMMENTS.get(name, ""), notes.get(name, "")) if text)
        lines += ["", *_comment(comment), f"[{name}]"]
        _table(value, name, notes, lines)


def _join(path: str, key: str) -> str:
    key = key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)
    return f"{path}.{key}" if path else key


def _entry(key: str, value: Any, name: str, notes: Mapping[str, str]) -> list[str]:
    comment = "; ".join(text for text in (COMMENTS.get(name, ""), notes.get(name, "")) if text)
    key = key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        rows = [f"  {{ {', '.join(f'{k} = {_value(v)}' for k, v in row.items())} }}," for row in value]
        return [*_comment(comment), f"{key} = [", *rows, "]"]
    return [f"{key} = {_value(value)}" + (f"  # {comment}" if comment else "")]


def _comment(text: str) -> list[str]:
    """Lines of a comment."""
    return textwrap.wrap(text, 116, initial_indent="# ", subsequent_indent="# ")


def _value(value: Any) -> str:
    """A TOML value: JSON's numbers, texts, booleans and lists of them are TOML's too."""
    if isinstance(value, float):
        return repr(round(value, 6))
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)
