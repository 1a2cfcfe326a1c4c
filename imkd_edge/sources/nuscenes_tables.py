"""The relational tables of a nuScenes v1.0 folder, joined; also those of a single scene that lack some rows."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.files import read_json
from imkd_edge.sources.geometry import transform_of

Row = dict[str, Any]

_LABEL_TABLES = ("sample_annotation", "instance", "category", "visibility")
_SENSOR_TABLES = ("scene", "sample", "sample_data", "calibrated_sensor", "sensor", "ego_pose")
_KEYS = {  # besides token, what each row of a table must have
    "scene": ("name",),
    "sample": ("timestamp", "scene_token"),
    "sample_data": (
        "sample_token",
        "ego_pose_token",
        "calibrated_sensor_token",
        "timestamp",
        "is_key_frame",
        "filename",
    ),
    "calibrated_sensor": ("sensor_token", "translation", "rotation", "camera_intrinsic"),
    "sensor": ("channel",),
    "ego_pose": ("translation", "rotation"),
    "sample_annotation": ("sample_token", "translation", "rotation", "size", "prev", "next"),
}
_PARTIAL = "tables_as_found"  # a scene whose tables lack rows; boxes beside them in annotations.json


def table_folders(path: Path) -> list[Path]:
    """Folders of tables in or at a path."""
    inside = [*sorted(path.glob("v1.0-*")), path / _PARTIAL, path]
    return [
        folder for folder in inside if (folder / "sample.json").is_file() and (folder / "sample_data.json").is_file()
    ]


class Tables:
    """Rows by token, and the joins that a reader needs.

    Args:
        path: the data set's folder (or its folder of tables).
        version: name of the folder of tables where there are several.
    """

    def __init__(self, path: Path, version: str | None = None):
        folders = [folder for folder in table_folders(path) if version in (None, folder.name)]
        if len(folders) != 1:
            what = (
                "several folders of tables: " + ", ".join(f.name for f in folders)
                if folders
                else f"no tables {version or 'v1.0-*'}"
            )
            raise Error(Code.source_unknown, what, str(path), "name one with version=, such as v1.0-mini")
        self.folder = folders[0]
        self.root = path if self.folder != path else path.parent
        self._rows = {name: self._load(name, True) for name in _SENSOR_TABLES}
        self._rows |= {name: self._load(name, False) for name in _LABEL_TABLES}
        self._adopt_partial_radars()
        self._channels = {row["token"]: self._channel(row) for row in self.all("calibrated_sensor")}
        self.samples = self._ordered_samples()
        self.keyframes: dict[str, dict[str, Row]] = {
            sample["token"]: {} for sample in self.samples
        }  # sample -> channel -> sample_data
        for row in self.all("sample_data"):
            if row["is_key_frame"] and row["sample_token"] in self.keyframes:
                self.keyframes[row["sample_token"]][self.channel(row)] = row
        self.annotations: dict[str, list[Row]] = {}  # sample -> sample_annotation
        for row in self.all("sample_annotation"):
            self.annotations.setdefault(row["sample_token"], []).append(row)

    def _load(self, name: str, required: bool) -> dict[str, Row]:
        path = self.folder / f"{name}.json"
        if not required and not path.is_file():
            return {}
        code = Code.source_bad_label if name in _LABEL_TABLES else Code.source_bad_calibration
        rows, keys = read_json(path, code), ("token", *_KEYS.get(name, ()))
        for row in rows if isinstance(rows, list) else [None]:
            absent = [key for key in keys if not isinstance(row, dict) or key not in row]
            if absent:
                raise Error(code, f"a row has no {absent[0]}", str(path), "copy the table again from the data set")
        return {row["token"]: row for row in rows}

    def all(self, table: str) -> list[Row]:
        """Rows of a table in the order of its file; none of a table of labels that is missing."""
        return list(self._rows[table].values())

    def row(self, table: str, token: str) -> Row:
        """One row; raises Error where a token leads nowhere."""
        try:
            return self._rows[table][token]
        except KeyError:
            code = Code.source_bad_label if table in _LABEL_TABLES else Code.source_bad_calibration
            where = str(self.folder / f"{table}.json")
            raise Error(
                code, f"no row {token!r}", where, "copy the tables again from the data set, all of one version"
            ) from None

    def _channel(self, calibration: Row) -> str:
        return str(self.row("sensor", calibration["sensor_token"])["channel"])

    def channel(self, data: Row) -> str:
        """Name of the sensor of a sample_data row, such as CAM_FRONT."""
        return self._channels[self.row("calibrated_sensor", data["calibrated_sensor_token"])["token"]]

    def _ordered_samples(self) -> list[Row]:
        scenes = {token: i for i, token in enumerate(self._rows["scene"])}
        samples = [
            (scenes.get(row["scene_token"], len(scenes)), row["timestamp"], row["token"]) for row in self.all("sample")
        ]
        return [self._rows["sample"][token] for *_, token in sorted(samples)]

    def transform(self, table: str, token: str) -> np.ndarray:
        """(4, 4) of a row of ego_pose (T_world_ego) or calibrated_sensor (T_ego_sensor)."""
        row, where = self.row(table, token), str(self.folder / f"{table}.json")
        try:
            return transform_of(row["translation"], row["rotation"])
        except (TypeError, ValueError) as fault:
            fix = "correct its translation and rotation"
            raise Error(Code.source_bad_calibration, f"row {token}: {fault}", where, fix) from None

    def pose(self, data: Row) -> np.ndarray:
        """(4, 4) T_world_ego when a sample_data row was taken."""
        return self.transform("ego_pose", data["ego_pose_token"])

    @cached_property
    def scene_rows(self) -> dict[str, dict[str, Row]]:
        """By scene a reading of each of its sensors, for the calibration of those that a sample lacks."""
        result: dict[str, dict[str, Row]] = {}
        for sample in self.samples:
            known = result.setdefault(sample["scene_token"], {})
            for channel, row in self.keyframes[sample["token"]].items():
                known.setdefault(channel, row)
        return result

    def history(self, data: Row, length: int) -> list[Row]:
        """Up to `length` sample_data rows of one sensor, newest first, following prev."""
        rows = [data]
        while len(rows) < length and rows[-1].get("prev"):
            rows.append(self.row("sample_data", rows[-1]["prev"]))
        return rows

    def loose_annotations(self) -> list[Row] | None:
        """Boxes of annotations.json, in the LiDAR frame, where a single sample has no table of them."""
        path = self.root / "annotations.json"
        if self._rows["sample_annotation"] or len(self.samples) != 1 or not path.is_file():
            return None
        return list(read_json(path, Code.source_bad_label))

    def _adopt_partial_radars(self) -> None:
        """Radars found apart from the tables: radar_partial/CHANNEL_calib_and_pose.json and CHANNEL__TIME*.pcd."""
        for path in sorted((self.root / "radar_partial").glob("*_calib_and_pose.json")):
            found = read_json(path, Code.source_bad_calibration)
            try:
                token, time = f"{found['channel']}@{found['timestamp']}", found["timestamp"]
                calibration = found["calibrated_sensor"]
                files = sorted(path.parent.glob(f"{found['channel']}__{time}*.pcd"))
                self._rows["calibrated_sensor"][calibration["token"]] = calibration
                self._rows["ego_pose"][token] = {"token": token, "timestamp": time, **found["ego_pose"]}
                links = {
                    "sample_token": found["sample_token"],
                    "ego_pose_token": token,
                    "calibrated_sensor_token": calibration["token"],
                }
            except (KeyError, TypeError) as fault:
                raise Error(Code.source_bad_calibration, f"missing {fault}", str(path), "copy the file again") from None
            if files:
                name = str(files[0].relative_to(self.root))
                self._rows["sample_data"][token] = {
                    "token": token,
                    "timestamp": time,
                    "is_key_frame": True,
                    "filename": name,
                    **links,
                }
