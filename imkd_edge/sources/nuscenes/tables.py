"""The relational tables of a nuScenes v1.0 folder and their joins; of a single scene some rows are missing."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.files import COPY_AGAIN, read_json
from imkd_edge.sources.geometry import transform_of
from imkd_edge.sources.times import MAX_TIME_NS, NS_PER_US

Row = dict[str, Any]

_LABEL_TABLES = ("sample_annotation", "instance", "category", "visibility")
_SENSOR_TABLES = ("scene", "sample", "sample_data", "calibrated_sensor", "sensor", "ego_pose")
_KEYS: dict[str, dict[str, type]] = {  # that each row of a table must have, besides token, and what their values are
    "scene": {"name": str},
    "sample": {"timestamp": int, "scene_token": str},
    "sample_data": {
        **dict.fromkeys(("sample_token", "ego_pose_token", "calibrated_sensor_token", "filename"), str),
        "timestamp": int,
        "is_key_frame": int,  # or bool
    },
    "calibrated_sensor": {"sensor_token": str, **dict.fromkeys(("translation", "rotation", "camera_intrinsic"), list)},
    "sensor": {"channel": str},
    "ego_pose": {"translation": list, "rotation": list},
    "sample_annotation": {
        "sample_token": str,
        "prev": object,
        "next": object,  # a token, or nothing
        **dict.fromkeys(("translation", "rotation", "size"), list),
    },
}
_PARTIAL = "tables_as_found"  # of a single scene: rows are missing, boxes lie beside them in annotations.json
_COPY_TABLE = "copy the table again from the data set"
_COPY_TABLES = "copy the tables again from the data set, all of one version"


def table_folders(path: Path) -> list[Path]:
    """The folders of tables in a path, or the path itself where it is one."""
    folders = [*sorted(path.glob("v1.0-*")), path / _PARTIAL, path]
    needed = ("sample.json", "sample_data.json")
    return [folder for folder in folders if all((folder / name).is_file() for name in needed)]


class Tables:
    """Rows by token, and the joins that the reader needs.

    Args:
        path: the data set's folder (or its folder of tables).
        version: name of the folder of tables where there are several.
        labels: False leaves out the tables of labels, which are not read.
    Raises:
        Error source_unknown: no folder of tables, or several; source_missing_file; source_bad_calibration and
            source_bad_label: a table that is not JSON, or a row without one of its keys.
    """

    def __init__(self, path: Path, version: str | None = None, labels: bool = True):
        folders = [folder for folder in table_folders(path) if version in (None, folder.name)]
        if len(folders) != 1:
            several = "several folders of tables: " + ", ".join(folder.name for folder in folders)
            what = several if folders else f"no tables {version or 'v1.0-*'}"
            raise Error(Code.source_unknown, what, str(path), "name one with version=, such as v1.0-mini")
        self.folder = folders[0]
        self.root = path if self.folder != path else path.parent
        self._rows = {name: self._load(name, True) for name in _SENSOR_TABLES}
        self._rows |= {name: self._load(name, False) if labels else {} for name in _LABEL_TABLES}
        self._add_partial_radars()
        self.truckscenes = (self.folder / "ego_motion_chassis.json").is_file()
        # channel -> camera, radar or lidar, where the table says so
        self.modalities = {str(row["channel"]): row.get("modality") for row in self.all("sensor")}
        self._channels = {row["token"]: self._channel(row) for row in self.all("calibrated_sensor")}
        self.samples = self._ordered_samples()
        # sample -> channel -> sample_data
        self.keyframes: dict[str, dict[str, Row]] = {sample["token"]: {} for sample in self.samples}
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
        rows, kinds = read_json(path, code), {"token": str, **_KEYS.get(name, {})}
        for row in rows if isinstance(rows, list) else [None]:
            for key, kind in kinds.items():
                if not isinstance(row, dict) or key not in row:
                    raise Error(code, f"a row has no {key}", str(path), _COPY_TABLE)
                if not isinstance(row[key], kind) or (kind is int and not 0 <= row[key] <= MAX_TIME_NS // NS_PER_US):
                    what = f"row {str(row['token'])[:40]}: its {key} is {str(row[key])[:40]!r}"
                    raise Error(code, what, str(path), _COPY_TABLE)
        return {row["token"]: row for row in rows}

    def all(self, table: str) -> list[Row]:
        """Rows of a table in the order of its file; [] for a table of labels that is missing."""
        return list(self._rows[table].values())

    def row(self, table: str, token: str) -> Row:
        """One row; raises Error source_bad_calibration or source_bad_label for an unknown token."""
        try:
            return self._rows[table][token]
        except (KeyError, TypeError):
            code = Code.source_bad_label if table in _LABEL_TABLES else Code.source_bad_calibration
            raise Error(code, f"no row {token!r}", str(self.folder / f"{table}.json"), _COPY_TABLES) from None

    def _channel(self, calibration: Row) -> str:
        return str(self.row("sensor", calibration["sensor_token"])["channel"])

    def channel(self, data: Row) -> str:
        """Name of the sensor of a sample_data row, such as CAM_FRONT."""
        return self._channels[self.row("calibrated_sensor", data["calibrated_sensor_token"])["token"]]

    def _ordered_samples(self) -> list[Row]:
        scenes = {token: i for i, token in enumerate(self._rows["scene"])}
        rows = self.all("sample")
        samples = [(scenes.get(row["scene_token"], len(scenes)), row["timestamp"], row["token"]) for row in rows]
        return [self._rows["sample"][token] for *_, token in sorted(samples)]

    def transform(self, table: str, token: str) -> np.ndarray:
        """(4, 4) of a row of ego_pose (T_world_ego) or calibrated_sensor (T_ego_sensor)."""
        row, where = self.row(table, token), str(self.folder / f"{table}.json")
        try:
            return transform_of(row["translation"], row["rotation"])
        except (TypeError, ValueError, OverflowError) as fault:
            fix = "correct its translation and rotation"
            raise Error(Code.source_bad_calibration, f"row {token}: {fault}", where, fix) from None

    def pose(self, data: Row) -> np.ndarray:
        """(4, 4) T_world_ego at the time of a sample_data row."""
        return self.transform("ego_pose", data["ego_pose_token"])

    @cached_property
    def scene_rows(self) -> dict[str, dict[str, Row]]:
        """Scene -> channel -> one reading: the calibration of sensors that a sample lacks."""
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

    def scene_name(self, sample: Row) -> str:
        """Name of the scene of a sample row."""
        return str(self.row("scene", sample["scene_token"])["name"])

    def single_annotations(self) -> list[Row] | None:
        """Boxes of annotations.json, in the LiDAR frame, for a single sample without sample_annotation; else None."""
        path = self.root / "annotations.json"
        if self._rows["sample_annotation"] or len(self.samples) != 1 or not path.is_file():
            return None
        return list(read_json(path, Code.source_bad_label))

    def _add_partial_radars(self) -> None:
        """Radars beside the tables: radar_partial/CHANNEL_calib_and_pose.json and CHANNEL__TIME*.pcd."""
        for path in sorted((self.root / "radar_partial").glob("*_calib_and_pose.json")):
            entry = read_json(path, Code.source_bad_calibration)
            try:
                channel, time = entry["channel"], entry["timestamp"]
                token, calibration = f"{channel}@{time}", entry["calibrated_sensor"]
                files = sorted(path.parent.glob(f"{channel}__{time}*.pcd"))
                self._rows["calibrated_sensor"][calibration["token"]] = calibration
                self._rows["ego_pose"][token] = {"token": token, "timestamp": time, **entry["ego_pose"]}
                links = {
                    "sample_token": entry["sample_token"],
                    "ego_pose_token": token,
                    "calibrated_sensor_token": calibration["token"],
                }
            except (KeyError, TypeError) as fault:
                raise Error(Code.source_bad_calibration, f"missing {fault}", str(path), COPY_AGAIN) from None
            if files:
                row = {"token": token, "timestamp": time, "is_key_frame": True, **links}
                self._rows["sample_data"][token] = {**row, "filename": str(files[0].relative_to(self.root))}
