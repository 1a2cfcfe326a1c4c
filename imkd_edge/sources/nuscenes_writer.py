"""Writes samples to disk as a nuScenes v1.0 data set (github.com/nutonomy/nuscenes-devkit, docs/schema_nuscenes.md)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.base import Sample, Source, Truth
from imkd_edge.sources.nuscenes_labels import ATTRIBUTES, CATEGORIES, attribute_of
from imkd_edge.sources.pcd_writer import radar_pcd

Row = dict[str, Any]
LIDAR = "LIDAR_TOP"
T_EGO_LIDAR = np.array(
    [[0.0, 1, 0, 0.94], [-1, 0, 0, 0], [0, 0, 1, 1.84], [0, 0, 0, 1]]
)  # where a nuScenes vehicle has it
_LEVELS = ("v0-40", "v40-60", "v60-80", "v80-100")  # tokens 1 to 4
_TABLES = (
    *("category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor", "ego_pose", "log", "scene"),
    *("sample", "sample_data", "sample_annotation", "map"),
)


def write_nuscenes(
    source: Source,
    folder: str | Path,
    version: str = "v1.0-synth",
    quality: int | None = 95,
    track: Callable[[Iterable], Iterable] | None = None,
) -> Path:
    """Writes a source whose samples have ego poses as a nuScenes data set that the official devkit opens.

    Key frames become samples, older radar sweeps sweeps/; tokens depend on the content's names alone. A source may tell
    `instances(name)`, the track number in the scene of every box, and `splits`; without tracks each box is a track of its own
    and nobody can derive a velocity from it. The devkit's own evaluation asks for LIDAR_TOP and drops boxes without
    LiDAR and radar points: write a source that simulates a LiDAR where that is wanted.

    Args:
        source: its samples are written scene by scene in order of time; at most one sample per moment.
        folder: must not exist or be empty; it appears only when complete.
        version: name of the folder of tables, v1.0-*.
        quality: of the JPEG images, 0..100; None stores PNG data, without loss, under the same .jpg names.
        track: wraps the sample names, for a progress bar.
    Returns:
        The folder.
    Raises:
        Error: write_failed; source_bad_calibration where a sample lacks its pose, a camera is distorted or a radar's
        velocity not compensated; source_bad_label for a class that nuScenes does not have.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Error(Code.write_failed, "the folder is not empty", str(folder), "name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _Writer(source, part, version, quality).write(track)
            part.chmod(0o755)
            os.replace(part, folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as fault:
        raise Error(
            Code.write_failed, str(fault), str(folder), "check the space and the rights of the folder"
        ) from None
    return folder


def _token(*parts: object) -> str:
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def _quaternion(R: np.ndarray) -> list[float]:
    """w, x, y, z of a rotation (3, 3); the largest component is found first, so that nothing small is divided by."""
    trace = np.array([R.trace(), R[0, 0], R[1, 1], R[2, 2]])
    k = int(trace.argmax())
    if k == 0:
        q = np.array([1 + trace[0], R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    else:
        i = k - 1
        j, m = (i + 1) % 3, (i + 2) % 3
        q = np.zeros(4)
        q[0], q[1 + i] = R[m, j] - R[j, m], 1 + R[i, i] - R[j, j] - R[m, m]
        q[1 + j], q[1 + m] = R[j, i] + R[i, j], R[m, i] + R[i, m]
    return (q / np.linalg.norm(q)).tolist()


def _placement(T: np.ndarray) -> Row:
    return {"translation": T[:3, 3].tolist(), "rotation": _quaternion(T[:3, :3])}


class _Writer:
    """Collects the rows of all tables while it writes the sensor files."""

    def __init__(self, source: Source, folder: Path, version: str, quality: int | None):
        self.source, self.folder, self.version, self.quality = source, folder, version, quality
        self.tables: dict[str, dict[str, Row]] = {name: {} for name in _TABLES}  # table -> token -> row
        self.last: dict[tuple, Row] = {}  # the newest row of each chain: (scene,), (scene, channel), (scene, instance)
        self.written: set[tuple[str, str, int]] = set()  # scene, channel, timestamp of radar sweeps on disk
        self.reach = np.zeros(2)  # largest world x, y of the ego, m

    def write(self, track: Callable[[Iterable], Iterable] | None) -> None:
        (self.folder / self.version).mkdir()
        self._constant_rows()
        names = list(self.source.names)
        for name in names if track is None else track(names):
            sample = self.source[name]
            if sample.ego is None or sample.ego.T_world_ego is None:
                raise Error(
                    Code.source_bad_calibration,
                    "the sample has no ego pose",
                    name,
                    "nuScenes needs one: write another source",
                )
            self._sample(sample)
        self._chain("sample_data", self._data_chains())
        self._map()
        for table, rows in self.tables.items():
            text = json.dumps(list(rows.values()), indent=0)
            (self.folder / self.version / f"{table}.json").write_text(text, encoding="utf-8")
        (self.folder / self.version / "splits.json").write_text(json.dumps(self._splits(), indent=0), encoding="utf-8")

    def _add(self, table: str, token: str, **row: Any) -> Row:
        self.tables[table][token] = {"token": token, **row}
        return self.tables[table][token]

    def _constant_rows(self) -> None:
        for name in CATEGORIES.values():
            self._add("category", _token("category", name), name=name, description="")
        for name in ATTRIBUTES:
            self._add("attribute", _token("attribute", name), name=name, description="")
        for number, level in enumerate(_LEVELS, 1):
            share = level[1:].replace("-", " and ")
            self._add(
                "visibility", str(number), level=level, description=f"visibility of whole object is between {share}%"
            )
        log = {"logfile": "synthetic", "vehicle": "synthetic", "date_captured": "2020-09-13", "location": "synthetic"}
        self._add("log", _token("log"), **log)

    def _map(self) -> None:
        """One white map that reaches 100 m beyond every ego position; the devkit wants one to open the set."""
        import cv2

        width, height = (
            np.ceil((self.reach + 100.0) * 10).astype(int).clip(1, 30_000).tolist()
        )  # the devkit's maps have 0.1 m per pixel
        data = cv2.imencode(".png", np.full((height, width), 255, np.uint8))[1]
        token = _token("map")
        (self.folder / "maps").mkdir()
        (self.folder / "maps" / f"{token}.png").write_bytes(data.tobytes())
        self._add(
            "map", token, category="semantic_prior", filename=f"maps/{token}.png", log_tokens=list(self.tables["log"])
        )

    def _splits(self) -> dict[str, list[str]]:
        """Scene names by split, as the devkit's custom splits; prefixed, for it forbids to redefine train and val."""
        scene = {row["token"]: row["name"] for row in self.tables["scene"].values()}
        result = {"all": list(scene.values())}
        for split, names in (getattr(self.source, "splits", None) or {}).items():
            tokens = [_token("sample", name) for name in names]
            result[f"synth_{split}"] = list(
                dict.fromkeys(
                    scene[self.tables["sample"][t]["scene_token"]] for t in tokens if t in self.tables["sample"]
                )
            )
        return result

    # ---- one sample ----
    def _sample(self, sample: Sample) -> None:
        scene = sample.scene or "scene"
        scene_row = self.tables["scene"].get(_token("scene", scene))
        token = _token("sample", sample.name)
        if scene_row is None:
            scene_row = self._add(
                "scene",
                _token("scene", scene),
                log_token=_token("log"),
                nbr_samples=0,
                first_sample_token=token,
                last_sample_token="",
                name=scene,
                description="synthetic",
            )
        row = self._add(
            "sample",
            token,
            timestamp=_microseconds(sample.timestamp_ns),
            prev="",
            next="",
            scene_token=scene_row["token"],
        )
        self._link((scene,), row)
        scene_row["nbr_samples"] += 1
        scene_row["last_sample_token"] = token
        assert sample.ego is not None and sample.ego.T_world_ego is not None
        pose = np.asarray(sample.ego.T_world_ego, float)
        self.reach = np.maximum(self.reach, pose[:2, 3])
        self._cameras(sample, scene, pose)
        self._radars(sample, scene, pose)
        if sample.lidar is not None:
            self._lidar(sample, scene, pose)
        if sample.truth is not None:
            self._annotations(sample, scene, pose, sample.truth)

    def _link(self, chain: tuple, row: Row) -> None:
        """Append a row to a chain of prev and next."""
        before = self.last.get(chain)
        if before is not None:
            before["next"], row["prev"] = row["token"], before["token"]
        self.last[chain] = row

    def _data_chains(self) -> dict[tuple, list[Row]]:
        chains: dict[tuple, list[Row]] = {}
        for row in self.tables["sample_data"].values():
            scene = self.tables["sample"][row["sample_token"]]["scene_token"]
            chains.setdefault((scene, row["calibrated_sensor_token"]), []).append(row)
        merged: dict[tuple, list[Row]] = {}
        for (scene, calibration), rows in chains.items():
            merged.setdefault((scene, self.tables["calibrated_sensor"][calibration]["sensor_token"]), []).extend(rows)
        return merged

    def _chain(self, table: str, chains: dict[tuple, list[Row]]) -> None:
        for key, rows in chains.items():
            for row in sorted(rows, key=lambda r: r["timestamp"]):
                self._link((table, *key), row)

    def _data(
        self,
        sample: Sample,
        scene: str,
        channel: str,
        T: np.ndarray,
        K: list,
        pose: np.ndarray,
        time_ns: int,
        key: bool,
        ending: str,
        **more: Any,
    ) -> Path:
        """Rows of one sensor reading; returns where its file goes."""
        modality = {"CAM": "camera", "RAD": "radar"}.get(channel[:3], "lidar")
        sensor = self._add("sensor", _token("sensor", channel), channel=channel, modality=modality)["token"]
        placement = _placement(T)
        calibration = _token("calibrated_sensor", scene, channel, placement, K)
        self._add("calibrated_sensor", calibration, sensor_token=sensor, **placement, camera_intrinsic=K)
        time = _microseconds(time_ns)
        token = _token("sample_data", scene, channel, time)
        self._add("ego_pose", token, timestamp=time, **_placement(pose))
        name = f"{'samples' if key else 'sweeps'}/{channel}/{scene}__{channel}__{time}.{ending}"
        links = {
            "sample_token": _token("sample", sample.name),
            "ego_pose_token": token,
            "calibrated_sensor_token": calibration,
        }
        size = {"height": more.get("height", 0), "width": more.get("width", 0)}
        kind = {"timestamp": time, "fileformat": ending.partition(".")[0], "is_key_frame": key}
        self._add("sample_data", token, **links, **kind, **size, filename=name, prev="", next="")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _cameras(self, sample: Sample, scene: str, pose: np.ndarray) -> None:
        import cv2

        for camera in sample.rig.cameras:
            image = sample.frames.get(camera.name)
            if image is None:
                continue
            if camera.distortion != "none":
                raise Error(
                    Code.source_bad_calibration,
                    f"{camera.name} is distorted",
                    sample.name,
                    "nuScenes has undistorted cameras only",
                )
            time = sample.camera_timestamps_ns.get(camera.name, sample.timestamp_ns)
            path = self._data(
                sample,
                scene,
                camera.name,
                camera.T_ego_camera,
                np.asarray(camera.K).tolist(),
                pose,
                time,
                True,
                "jpg",
                height=camera.height,
                width=camera.width,
            )
            bgr = np.ascontiguousarray(image[..., ::-1])
            kind, options = (".png", []) if self.quality is None else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            path.write_bytes(cv2.imencode(kind, bgr, options)[1].tobytes())

    def _radars(self, sample: Sample, scene: str, pose: np.ndarray) -> None:
        for radar in sample.rig.radars:
            if radar.velocity != "compensated":
                raise Error(
                    Code.source_bad_calibration,
                    f"{radar.name} is not compensated",
                    sample.name,
                    "nuScenes needs velocities over ground",
                )
            mine = [
                (sample.timestamp_ns if s.timestamp_ns is None else s.timestamp_ns, s)
                for s in sample.radar
                if s.radar == radar.name
            ]
            for k, (time, sweep) in enumerate(sorted(mine, key=lambda item: -item[0])):
                if (scene, radar.name, time) in self.written:
                    continue
                self.written.add((scene, radar.name, time))
                at = pose if sweep.T_world_ego is None else np.asarray(sweep.T_world_ego, float)
                path = self._data(sample, scene, radar.name, radar.T_ego_radar, [], at, time, k == 0, "pcd")
                path.write_bytes(radar_pcd(sweep, radar, None if sample.ego is None else sample.ego.twist))

    def _lidar(self, sample: Sample, scene: str, pose: np.ndarray) -> None:
        assert sample.lidar is not None
        T = np.asarray(getattr(self.source, "T_ego_lidar", T_EGO_LIDAR), float)
        points = np.zeros((len(sample.lidar), 5), "<f4")  # x, y, z, intensity, ring (unknown)
        points[:, :3] = (sample.lidar[:, :3].astype(float) - T[:3, 3]) @ T[:3, :3]
        points[:, 3] = sample.lidar[:, 3]
        path = self._data(sample, scene, LIDAR, T, [], pose, sample.timestamp_ns, True, "pcd.bin")
        path.write_bytes(points.tobytes())

    def _annotations(self, sample: Sample, scene: str, pose: np.ndarray, truth: Truth) -> None:
        numbers = getattr(self.source, "instances", None)
        tracks = (
            numbers(sample.name) if numbers is not None else [f"{sample.name}/{i}" for i in range(len(truth.labels))]
        )
        for i, (box, label, number) in enumerate(zip(truth.boxes, truth.labels, tracks)):
            if label not in CATEGORIES:
                raise Error(
                    Code.source_bad_label,
                    f"nuScenes has no class {label!r}",
                    sample.name,
                    f"known are {', '.join(CATEGORIES)}",
                )
            category = _token("category", CATEGORIES[label])
            instance = _token("instance", scene, number)
            row = self._annotation(sample, pose, truth, i, box, label, instance)
            self._link((scene, instance), row)
            known = self.tables["instance"].get(instance) or self._add(
                "instance",
                instance,
                category_token=category,
                nbr_annotations=0,
                first_annotation_token=row["token"],
                last_annotation_token="",
            )
            known["nbr_annotations"] += 1
            known["last_annotation_token"] = row["token"]

    def _annotation(
        self, sample: Sample, pose: np.ndarray, truth: Truth, i: int, box: np.ndarray, label: str, instance: str
    ) -> Row:
        turn = np.eye(3)
        turn[:2, :2] = [[np.cos(box[6]), -np.sin(box[6])], [np.sin(box[6]), np.cos(box[6])]]
        attribute = attribute_of(label, float(np.hypot(box[7], box[8])))
        occlusion = int(truth.occlusion[i])
        return self._add(
            "sample_annotation",
            _token("sample_annotation", sample.name, instance),
            sample_token=_token("sample", sample.name),
            instance_token=instance,
            visibility_token=str(4 - occlusion) if occlusion >= 0 else "",
            attribute_tokens=[_token("attribute", attribute)] if attribute else [],
            translation=(pose[:3, :3] @ box[:3] + pose[:3, 3]).tolist(),
            size=[float(box[4]), float(box[3]), float(box[5])],
            rotation=_quaternion(pose[:3, :3] @ turn),
            prev="",
            next="",
            num_lidar_pts=max(int(truth.lidar_points[i]), 0),
            num_radar_pts=max(int(truth.radar_points[i]), 0),
        )


def _microseconds(ns: int) -> int:
    return (int(ns) + 500) // 1000
