"""The relational tables of a nuScenes folder that is being written: rows, tokens, chains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.sources.geometry import quaternion_of
from imkd_edge.sources.nuscenes.labels import ATTRIBUTES, CATEGORIES, VISIBILITY
from imkd_edge.sources.nuscenes.tables import Row

_TABLES = (
    *("category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor", "ego_pose", "log", "scene"),
    *("sample", "sample_data", "sample_annotation", "map"),
)


def token_of(*parts: object) -> str:
    """The token of a row: it depends on these names alone."""
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def pose_row(T: np.ndarray) -> Row:
    """translation and rotation (w, x, y, z) of a (4, 4) pose."""
    return {"translation": T[:3, 3].tolist(), "rotation": quaternion_of(T[:3, :3])}


class NewTables:
    """Rows by table and token, in the order in which they are added."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Row]] = {name: {} for name in _TABLES}  # table -> token -> row
        self._newest: dict[tuple, Row] = {}  # of each chain: (scene,), (scene, instance), (table, scene, sensor)
        for name in CATEGORIES.values():
            self.add("category", token_of("category", name), name=name, description="")
        for name in ATTRIBUTES:
            self.add("attribute", token_of("attribute", name), name=name, description="")
        for number, level in enumerate(VISIBILITY, 1):
            text = f"visibility of whole object is between {level[1:].replace('-', ' and ')}%"
            self.add("visibility", str(number), level=level, description=text)
        log = {"logfile": "synthetic", "vehicle": "synthetic", "date_captured": "2020-09-13", "location": "synthetic"}
        self.add("log", token_of("log"), **log)

    def add(self, table: str, token: str, **row: Any) -> Row:
        """Adds a row, or replaces the one of the same token."""
        self.rows[table][token] = {"token": token, **row}
        return self.rows[table][token]

    def scene(self, name: str, first_sample: str) -> Row:
        """The row of a scene, added with its first sample."""
        token = token_of("scene", name)
        samples = {"nbr_samples": 0, "first_sample_token": first_sample, "last_sample_token": ""}
        return self.rows["scene"].get(token) or self.add(
            "scene", token, log_token=token_of("log"), **samples, name=name, description="synthetic"
        )

    def count_instance(self, token: str, category: str, annotation: str) -> None:
        """Adds an annotation to the row of its instance (track)."""
        row = self.rows["instance"].get(token) or self.add(
            "instance",
            token,
            category_token=category,
            nbr_annotations=0,
            first_annotation_token=annotation,
            last_annotation_token="",
        )
        row["nbr_annotations"] += 1
        row["last_annotation_token"] = annotation

    def link(self, chain: tuple, row: Row) -> None:
        """Appends a row to a chain of prev and next."""
        before = self._newest.get(chain)
        if before is not None:
            before["next"], row["prev"] = row["token"], before["token"]
        self._newest[chain] = row

    def link_sample_data(self) -> None:
        """Chains the readings of each sensor and scene in order of time."""
        chains: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows["sample_data"].values():
            scene = self.rows["sample"][row["sample_token"]]["scene_token"]
            sensor = self.rows["calibrated_sensor"][row["calibrated_sensor_token"]]["sensor_token"]
            chains.setdefault((scene, sensor), []).append(row)
        for chain, rows in chains.items():
            for row in sorted(rows, key=lambda row: row["timestamp"]):
                self.link(("sample_data", *chain), row)

    def write(self, folder: Path, splits: Mapping[str, Sequence[str]]) -> None:
        """Writes one JSON file a table, and splits.json with the scene names of `splits`, which hold sample names."""
        for table, rows in self.rows.items():
            (folder / f"{table}.json").write_text(json.dumps(list(rows.values()), indent=0), encoding="utf-8")
        (folder / "splits.json").write_text(json.dumps(self._scene_splits(splits), indent=0), encoding="utf-8")

    def _scene_splits(self, splits: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Scene names by split, for the devkit, which refuses custom splits called train or val: so synth_train."""
        scenes = {row["token"]: row["name"] for row in self.rows["scene"].values()}
        samples = self.rows["sample"]
        result = {"all": list(scenes.values())}
        for split, names in splits.items():
            tokens = [token for name in names if (token := token_of("sample", name)) in samples]
            result[f"synth_{split}"] = list(dict.fromkeys(scenes[samples[token]["scene_token"]] for token in tokens))
        return result
