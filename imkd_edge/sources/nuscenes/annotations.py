"""Labelled boxes of nuScenes as Truth: from sample_annotation, or from the annotations.json of a single sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Truth
from imkd_edge.sources.files import reason
from imkd_edge.sources.geometry import rotation_of, transform, yaw_of
from imkd_edge.sources.nuscenes.labels import DETECTION_CLASSES, RACK, class_of, occlusion_of
from imkd_edge.sources.nuscenes.tables import Row, Tables
from imkd_edge.sources.nuscenes.vehicle import LIDAR
from imkd_edge.sources.times import s_from_us

_MAX_VELOCITY_GAP_US = 1_500_000  # a velocity over a longer gap is unknown (twice that between two neighbours)

_Object = tuple[np.ndarray, str, tuple[int, int, int]]  # box (9,), label, (occlusion, radar points, LiDAR points)


class Annotations:
    """The labelled boxes of every sample.

    Args:
        tables: of the folder.
        samples: sample row by token, for the times of neighbouring annotations.
    """

    def __init__(self, tables: Tables, samples: Mapping[str, Row]):
        self.tables, self._samples = tables, samples

    def truth(self, sample: Row, T_world_ego: np.ndarray) -> Truth | None:
        """Boxes in the ego frame of a sample; None where the folder has no labels. Raises Error source_bad_label."""
        items = self.tables.single_annotations()
        if items is None and not self.tables.annotations:
            return None
        try:
            if items is None:
                objects, racks = self._objects(sample, T_world_ego), self._racks(sample, T_world_ego)
            else:
                objects, racks = self._single_objects(sample, items), []
            counts = np.array([numbers for *_, numbers in objects], np.int32).reshape(-1, 3)
        except (KeyError, TypeError, ValueError, OverflowError) as fault:
            table, single = self.tables.folder / "sample_annotation.json", self.tables.root / "annotations.json"
            where, fix = str(table if items is None else single), "correct the box or copy the table again"
            raise Error(Code.source_bad_label, reason(fault), where, fix) from None
        return Truth(
            boxes=np.array([box for box, *_ in objects], np.float64).reshape(-1, 9),
            labels=[label for _, label, _ in objects],
            occlusion=counts[:, 0].astype(np.int8),
            radar_points=counts[:, 1],
            lidar_points=counts[:, 2],
            racks=np.array(racks, np.float64).reshape(-1, 9),
        )

    def _objects(self, sample: Row, T_world_ego: np.ndarray) -> list[_Object]:
        rows = self.tables.annotations.get(sample["token"], [])
        classes = [(row, class_of(self._category(row), self.tables.truckscenes)) for row in rows]
        return [
            (self._box(row, T_world_ego), label, (self._occlusion(row), *_counts(row)))
            for row, label in classes
            if label
        ]

    def _racks(self, sample: Row, T_world_ego: np.ndarray) -> list[np.ndarray]:
        rows = self.tables.annotations.get(sample["token"], [])
        return [self._box(row, T_world_ego) for row in rows if self._category(row) == RACK]

    def _single_objects(self, sample: Row, items: list[Row]) -> list[_Object]:
        """Objects of annotations.json: boxes in the LiDAR frame, occlusion unknown."""
        row = self.tables.keyframes[sample["token"]][LIDAR]
        T_ego_lidar = self.tables.transform("calibrated_sensor", row["calibrated_sensor_token"])
        items = [item for item in items if item["name"] in DETECTION_CLASSES.values()]
        return [(_lidar_box(item, T_ego_lidar), item["name"], (-1, *_counts(item))) for item in items]

    def _category(self, row: Row) -> str:
        category = row.get("category_name")  # the devkit's shortcut, which the tables lack
        if category is None:
            instance = self.tables.row("instance", row["instance_token"])
            category = self.tables.row("category", instance["category_token"])["name"]
        return str(category)

    def _occlusion(self, row: Row) -> int:
        token = row.get("visibility_token")
        return occlusion_of(self.tables.row("visibility", token)["level"]) if token else -1

    def _box(self, row: Row, T_world_ego: np.ndarray) -> np.ndarray:
        R_ego_world = T_world_ego[:3, :3].T
        center = R_ego_world @ (np.array(row["translation"], np.float64) - T_world_ego[:3, 3])
        width, length, height = row["size"]
        yaw = yaw_of(R_ego_world @ rotation_of(row["rotation"]))
        velocity = R_ego_world @ self._velocity(row)
        return _valid(np.array([*center, length, width, height, yaw, *velocity[:2]], np.float64))

    def _velocity(self, row: Row) -> np.ndarray:
        """(3,) m/s in the world frame: difference of the neighbouring annotations; nan where none is near in time."""
        first, last = (self.tables.row("sample_annotation", row[key]) if row[key] else row for key in ("prev", "next"))
        times = [self._samples[item["sample_token"]]["timestamp"] for item in (first, last)]
        gap = times[1] - times[0]
        if gap <= 0 or gap > _MAX_VELOCITY_GAP_US * (2 if row["prev"] and row["next"] else 1):
            return np.full(3, np.nan)
        return (np.array(last["translation"]) - np.array(first["translation"])) / s_from_us(gap)


def _counts(row: Row) -> tuple[int, int]:
    """Radar and LiDAR points in a box; -1 unknown."""
    return int(row.get("num_radar_pts", -1)), int(row.get("num_lidar_pts", -1))


def _valid(box: np.ndarray) -> np.ndarray:
    if not np.isfinite(box[:7]).all() or (box[3:6] <= 0).any():
        raise ValueError(f"not a box: {box}")
    return box


def _lidar_box(item: Row, T_ego_lidar: np.ndarray) -> np.ndarray:
    R, yaw = T_ego_lidar[:3, :3], item["yaw_lidar"]
    center = transform(T_ego_lidar, np.array(item["center_lidar"], np.float64))
    heading = R @ [np.cos(yaw), np.sin(yaw), 0]
    velocity = R @ np.array([*item["velocity_lidar_xy"], 0], np.float64)  # null (unknown) becomes nan
    yaw = np.arctan2(heading[1], heading[0])
    return _valid(np.array([*center, *item["size_lwh"], yaw, *velocity[:2]], np.float64))
