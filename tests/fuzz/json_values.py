"""Changes an input value by value where it is JSON, as json_mutator.cpp does for C++: bytes rarely make another one."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

TARGETS = {"data_sets", "description", "engine_record", "frames"}  # whose inputs have JSON in them
VALUES = (
    *(None, True, False, 0, -1, 0.5, 1e-9, 1e308, 10**30, float("nan"), float("inf")),
    *("", "x", "\0", "\ud800", [], {}, [[1, 2]], {"": None}, [0] * 3, [0.0] * 4, ["x"] * 3),
)
_DECODER = json.JSONDecoder()


def change(data: bytes, most: int, seed: int, change_bytes: Callable[[bytes, int], bytes]) -> bytes:
    """Another input: an object or list that begins anywhere in it gets, loses or repeats a value.

    Args:
        data: the input.
        most: bytes of the other one.
        seed: of what is chosen.
        change_bytes: the fuzzer's own change, for one in three inputs and those without JSON.
    """
    chance, text = random.Random(seed), data.decode("latin-1")
    starts = [i for i, letter in enumerate(text) if letter in "{["]
    if not starts or chance.random() < 1 / 3:
        return change_bytes(data, most)
    start = chance.choice(starts)
    try:
        tree, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return change_bytes(data, most)
    _edit(tree, chance)
    return (text[:start] + json.dumps(tree) + text[end:]).encode("latin-1")[:most]


def _edit(tree: Any, chance: random.Random) -> None:
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    value = copy.deepcopy(chance.choice(VALUES))
    if not keys:
        tree.append(value) if isinstance(tree, list) else tree.update(x=value)
        return
    key, other = chance.choice(keys), chance.choice(keys)
    kind = chance.randrange(4)
    if kind == 0:
        tree[key] = copy.deepcopy(tree[other])
    elif kind == 1:
        del tree[key]
    elif kind == 2 and isinstance(tree, list):
        tree.append(copy.deepcopy(tree[key]))
    else:
        tree[key] = value
