"""Writes samples to disk as a nuScenes v1.0 data set."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.progress import Track
from imkd_edge.rig import CameraCalibration
from imkd_edge.sources.base import Sample, Source, Truth
from imkd_edge.sources.files import file_name
from imkd_edge.sources.geometry import quaternion_of
from imkd_edge.sources.nuscenes.labels import CATEGORIES, attribute_of, visibility_token
from imkd_edge.sources.nuscenes.new_tables import NewTables, pose_row, token_of
from imkd_edge.sources.nuscenes.radar import radar_pcd
from imkd_edge.sources.nuscenes.tables import Row
from imkd_edge.sources.nuscenes.vehicle import LIDAR, T_EGO_LIDAR
from imkd_edge.sources.times import us_from_ns

_MAP_MARGIN = 100.0  # m beyond every ego position
_MAP_PIXELS = 10  # per metre, as the devkit's maps
_MAP_LIMIT = 30_000  # px


def write_nuscenes(
    source: Source,
    folder: str | Path,
    version: str = "v1.0-synth",
    quality: int | None = 95,
    track: Track | None = None,
) -> Path:
    """Writes a source whose samples have ego poses as a nuScenes data set that the official devkit opens.

    Key frames become samples, older radar sweeps sweeps/; tokens depend on names alone. A source may have
    `instances(name)`, the track number in the scene of every box, and `splits`. Without tracks each box is a track of
    its own, from which no velocity follows. The devkit's evaluation needs LIDAR_TOP and drops boxes without LiDAR and
    radar points: for it, write a source that simulates a LiDAR.

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
        fix = "check the space and the rights of the folder"
        raise Error(Code.write_failed, str(fault), str(folder), fix) from None
    return folder


@dataclass(frozen=True)
class _Reading:
    """One sensor reading: what its rows hold besides the sample."""

    channel: str
    time_us: int
    T_ego_sensor: np.ndarray  # (4, 4)
    T_world_ego: np.ndarray  # (4, 4) at that time
    ending: str  # of the file's name
    key_frame: bool = True
    camera: CameraCalibration | None = None


class _Writer:
    """Collects the rows of all tables while it writes the sensor files."""

    def __init__(self, source: Source, folder: Path, version: str, quality: int | None):
        self.source, self.folder, self.version, self.quality = source, folder, version, quality
        self.tables = NewTables()
        self.sweeps: set[tuple[str, str, int]] = set()  # scene, channel, timestamp of radar sweeps on disk
        self.reach = np.zeros(2)  # largest world x, y of the ego, m

    def write(self, track: Track | None) -> None:
        (self.folder / self.version).mkdir()
        names = list(self.source.names)
        for name in names if track is None else track(names):
            self._sample(self.source[name])
        self.tables.link_sample_data()
        self._map()
        self.tables.write(self.folder / self.version, getattr(self.source, "splits", None) or {})

    def _map(self) -> None:
        """One white map beyond every ego position: the devkit does not open a set without."""
        import cv2

        pixels = np.ceil((self.reach + _MAP_MARGIN) * _MAP_PIXELS)
        width, height = pixels.astype(int).clip(1, _MAP_LIMIT).tolist()
        data = cv2.imencode(".png", np.full((height, width), 255, np.uint8))[1]
        token = token_of("map")
        (self.folder / "maps").mkdir()
        (self.folder / "maps" / f"{token}.png").write_bytes(data.tobytes())
        logs = list(self.tables.rows["log"])
        self.tables.add("map", token, category="semantic_prior", filename=f"maps/{token}.png", log_tokens=logs)

    # ---- one sample ----
    def _sample(self, sample: Sample) -> None:
        if sample.ego is None or sample.ego.T_world_ego is None:
            fix = "nuScenes needs one: write another source"
            raise Error(Code.source_bad_calibration, "the sample has no ego pose", sample.name, fix)
        scene, token = sample.scene or "scene", token_of("sample", sample.name)
        scene_row = self.tables.scene(scene, token)
        row = self.tables.add(
            "sample",
            token,
            timestamp=us_from_ns(sample.timestamp_ns),
            prev="",
            next="",
            scene_token=scene_row["token"],
        )
        self.tables.link((scene,), row)
        scene_row["nbr_samples"] += 1
        scene_row["last_sample_token"] = token
        pose = np.asarray(sample.ego.T_world_ego, float)
        self.reach = np.maximum(self.reach, pose[:2, 3])
        self._cameras(sample, scene, pose)
        self._radars(sample, scene, pose)
        if sample.lidar is not None:
            self._lidar(sample, scene, pose, sample.lidar)
        if sample.truth is not None:
            self._annotations(sample, scene, pose, sample.truth)

    def _reading(self, sample: Sample, scene: str, reading: _Reading) -> Path:
        """Adds the rows of one sensor reading; returns the path of its file, in a folder that exists."""
        channel, time, camera = reading.channel, reading.time_us, reading.camera
        modality = {"CAM": "camera", "RAD": "radar"}.get(channel[:3], "lidar")
        sensor = self.tables.add("sensor", token_of("sensor", channel), channel=channel, modality=modality)["token"]
        mounting, K = pose_row(reading.T_ego_sensor), [] if camera is None else np.asarray(camera.K).tolist()
        calibration = token_of("calibrated_sensor", scene, channel, mounting, K)
        self.tables.add("calibrated_sensor", calibration, sensor_token=sensor, **mounting, camera_intrinsic=K)
        token = token_of("sample_data", scene, channel, time)
        self.tables.add("ego_pose", token, timestamp=time, **pose_row(reading.T_world_ego))

        folder = "samples" if reading.key_frame else "sweeps"
        name = f"{folder}/{channel}/{file_name(scene)}__{channel}__{time}.{reading.ending}"
        self.tables.add(
            "sample_data",
            token,
            sample_token=token_of("sample", sample.name),
            ego_pose_token=token,
            calibrated_sensor_token=calibration,
            timestamp=time,
            fileformat=reading.ending.partition(".")[0],
            is_key_frame=reading.key_frame,
            height=camera.height if camera else 0,
            width=camera.width if camera else 0,
            filename=name,
            prev="",
            next="",
        )
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
                what, fix = f"{camera.name} is distorted", "nuScenes has undistorted cameras only"
                raise Error(Code.source_bad_calibration, what, sample.name, fix)
            time = us_from_ns(sample.camera_timestamps_ns.get(camera.name, sample.timestamp_ns))
            T_world_ego = _exposure_pose(sample, camera.name, pose)
            reading = _Reading(camera.name, time, np.asarray(camera.T_ego_camera), T_world_ego, "jpg", camera=camera)
            path = self._reading(sample, scene, reading)
            bgr = np.ascontiguousarray(image[..., ::-1])
            kind, options = (".png", []) if self.quality is None else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            path.write_bytes(cv2.imencode(kind, bgr, options)[1].tobytes())

    def _radars(self, sample: Sample, scene: str, pose: np.ndarray) -> None:
        twist = None if sample.ego is None else sample.ego.twist
        for radar in sample.rig.radars:
            if radar.velocity != "compensated":
                what, fix = f"{radar.name} is not compensated", "nuScenes needs velocities over ground"
                raise Error(Code.source_bad_calibration, what, sample.name, fix)
            sweeps = [
                (sample.timestamp_ns if sweep.timestamp_ns is None else sweep.timestamp_ns, sweep)
                for sweep in sample.radar
                if sweep.radar == radar.name
            ]
            for k, (time_ns, sweep) in enumerate(sorted(sweeps, key=lambda item: -item[0])):
                if (scene, radar.name, time_ns) in self.sweeps:
                    continue
                self.sweeps.add((scene, radar.name, time_ns))
                T_world_ego = pose if sweep.T_world_ego is None else np.asarray(sweep.T_world_ego, float)
                T_ego_radar, time = np.asarray(radar.T_ego_radar), us_from_ns(time_ns)
                reading = _Reading(radar.name, time, T_ego_radar, T_world_ego, "pcd", key_frame=k == 0)
                self._reading(sample, scene, reading).write_bytes(radar_pcd(sweep, radar, twist))

    def _lidar(self, sample: Sample, scene: str, pose: np.ndarray, lidar: np.ndarray) -> None:
        T = np.asarray(getattr(self.source, "T_ego_lidar", T_EGO_LIDAR), float)
        points = np.zeros((len(lidar), 5), "<f4")  # x, y, z, intensity, ring (unknown)
        points[:, :3] = (lidar[:, :3].astype(float) - T[:3, 3]) @ T[:3, :3]
        points[:, 3] = lidar[:, 3]
        reading = _Reading(LIDAR, us_from_ns(sample.timestamp_ns), T, pose, "pcd.bin")
        self._reading(sample, scene, reading).write_bytes(points.tobytes())

    # ---- labels ----
    def _annotations(self, sample: Sample, scene: str, pose: np.ndarray, truth: Truth) -> None:
        instances = getattr(self.source, "instances", None)
        single = [f"{sample.name}/{i}" for i in range(len(truth.labels))]
        tracks = single if instances is None else instances(sample.name)
        for i, (label, number) in enumerate(zip(truth.labels, tracks)):
            if label not in CATEGORIES:
                what, fix = f"nuScenes has no class {label!r}", f"known are {', '.join(CATEGORIES)}"
                raise Error(Code.source_bad_label, what, sample.name, fix)
            instance = token_of("instance", scene, number)
            row = self._annotation(sample, pose, truth, i, instance)
            self.tables.link((scene, instance), row)
            self.tables.count_instance(instance, token_of("category", CATEGORIES[label]), row["token"])

    def _annotation(self, sample: Sample, pose: np.ndarray, truth: Truth, i: int, instance: str) -> Row:
        """Adds the row of box i of a sample."""
        box = truth.boxes[i]
        R_ego_box = np.eye(3)
        R_ego_box[:2, :2] = [[np.cos(box[6]), -np.sin(box[6])], [np.sin(box[6]), np.cos(box[6])]]
        attribute = attribute_of(truth.labels[i], float(np.hypot(box[7], box[8])))
        return self.tables.add(
            "sample_annotation",
            token_of("sample_annotation", sample.name, instance),
            sample_token=token_of("sample", sample.name),
            instance_token=instance,
            visibility_token=visibility_token(int(truth.occlusion[i])),
            attribute_tokens=[token_of("attribute", attribute)] if attribute else [],
            translation=(pose[:3, :3] @ box[:3] + pose[:3, 3]).tolist(),
            size=[float(box[4]), float(box[3]), float(box[5])],
            rotation=quaternion_of(pose[:3, :3] @ R_ego_box),
            prev="",
            next="",
            num_lidar_pts=max(int(truth.lidar_points[i]), 0),
            num_radar_pts=max(int(truth.radar_points[i]), 0),
        )


def _exposure_pose(sample: Sample, camera: str, T_world_ego: np.ndarray) -> np.ndarray:
    """(4, 4) ego pose at a camera's exposure: its own, else from the motion around the sample's pose."""
    if camera in sample.camera_T_world_ego:
        return np.asarray(sample.camera_T_world_ego[camera], float)
    time = sample.camera_timestamps_ns.get(camera, sample.timestamp_ns)
    return T_world_ego @ sample.motion().T_ref_at(time)
