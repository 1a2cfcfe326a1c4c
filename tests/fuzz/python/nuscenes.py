"""A nuScenes folder whose tables are changed: four bytes choose a table, a row, a key and its new value, and so on."""

import contextlib
import copy
import itertools
import json
import warnings
from typing import Any

from fuzz import scratch
from sources.nuscenes_folder import write_nuscenes

from imkd_edge.errors import Error
from imkd_edge.sources.nuscenes import NuScenesSource

EDITS = 16
ROOT = write_nuscenes(scratch.FOLDER / "nuscenes")
FILES = sorted(path for path in (ROOT / "v1.0-mini").glob("*.json") if path.stem not in ("attribute", "log", "map"))
TABLES: list[list[dict[str, Any]]] = [json.loads(path.read_bytes()) for path in FILES]
WRITTEN: set[int] = set()  # tables that differ from TABLES on the disk
NUMBERS = (-1, 0, 0.5, 1e308, 10**30, True, float("nan"))
LISTS = ([number] * size for number in NUMBERS for size in (3, 4))
VALUES: tuple[Any, ...] = (None, *NUMBERS, "", "x", "a\0b", [], {}, *LISTS)


def edit(rows: list[dict[str, Any]], row: int, key: int, value: int) -> None:
    """Sets a key of a row to a value of VALUES or to that of another row, or removes it."""
    changed = rows[row % len(rows)]
    if not changed:
        return
    name = sorted(changed)[key % len(changed)]
    if value == 255:
        del changed[name]
    elif value < len(VALUES):
        changed[name] = copy.deepcopy(VALUES[value])
    else:
        changed[name] = rows[value % len(rows)].get(name)


def run(data: bytes) -> None:
    tables = copy.deepcopy(TABLES)
    edits = [data[i : i + 4] for i in range(0, min(len(data) // 4, EDITS) * 4, 4)]
    changed = {table % len(tables) for table, *_ in edits}
    for table, row, key, value in edits:
        edit(tables[table % len(tables)], row, key, value)
    for i in WRITTEN | changed:
        FILES[i].write_text(json.dumps(tables[i]))
    WRITTEN.clear()
    WRITTEN.update(changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = NuScenesSource(ROOT, images=False, sweeps=2)
        for name in itertools.islice(source.names, 4):
            with contextlib.suppress(Error):
                source[name]
