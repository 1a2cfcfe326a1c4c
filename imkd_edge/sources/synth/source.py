"""The synthetic world as a source: which samples there are, and how one is made."""

from __future__ import annotations

import operator
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.nuscenes.vehicle import T_EGO_LIDAR
from imkd_edge.sources.synth.rig import default_rig
from imkd_edge.sources.synth.truth import boxes_of, count_radar_points, near_objects, truth_of_scene
from imkd_edge.sources.times import ns_from_us, s_from_us, us_from_s

if TYPE_CHECKING:  # these need OpenCV, so they are imported for the first sample
    from imkd_edge.sources.synth.camera import Camera, Picture, Renderer
    from imkd_edge.sources.synth.lidar import LidarModel
    from imkd_edge.sources.synth.mesh import SceneMesh
    from imkd_edge.sources.synth.radar import RadarModel
    from imkd_edge.sources.synth.roads import State
    from imkd_edge.sources.synth.world import Scene

RADAR_PERIOD_US = 75_000
RADAR_PHASE_US = 13_000  # of each radar after the one before
EPOCH_US = 1_600_000_000_000_000  # time 0 of scene 0
SCENE_US = 1_000_000_000  # between the starts of scenes
VALIDATION = 8  # every eighth scene
CACHED_SCENES = 4  # in memory; one takes about 25 MB

# Streams of random numbers: [seed, scene, stream, ...]; world, mesh and ground have 1, 2 and 3.
_LIDAR_STREAM, _RADAR_STREAM = 5, 10


@dataclass
class _Models:
    """A scene and the models of its sensors, built once."""

    scene: Scene
    mesh: SceneMesh
    renderer: Renderer
    radar: RadarModel
    lidar: LidarModel


class SynthSource(Source):
    """Random-access synthetic recordings; a sample depends on (seed, scene, frame) and the options alone.

    840 training and 120 validation frames by default; scenes are made on access. Every eighth scene (index 7, 15, ...)
    is validation: `splits["train"]` and `splits["val"]` hold names of disjoint scenes.

    One thread at a time: drawing changes the scene's map for its duration.

    Args:
        seed: of the whole world.
        scenes: number of recordings, each of another street.
        frames_per_scene: key frames of each.
        image: width and height of the raw cameras, px; nuScenes' are 1600 x 900, 480 x 270 has the same view.
        rate_hz: key frames per second.
        sweeps: radar sweeps per radar and sample, 75 ms apart, the newest at or up to 75 ms before the sample.
        lidar: also simulate LIDAR_TOP (slower; for training a teacher).
        rig: other cameras (undistorted) and radars than `default_rig(image)`.
        classes: some of car, truck, bus, motorcycle, bicycle, pedestrian.
    Raises:
        Error: spec_bad_value for impossible numbers or unknown classes, source_bad_calibration for a distorted camera.
    """

    kind = "synth"
    intensity, traffic = "rcs_dbsm", "right"
    T_ego_lidar = T_EGO_LIDAR

    def __init__(
        self,
        seed: int = 0,
        scenes: int = 96,
        frames_per_scene: int = 10,
        image: tuple[int, int] = (480, 270),
        rate_hz: float = 2.0,
        sweeps: int = 3,
        lidar: bool = False,
        rig: SensorRig | None = None,
        classes: Sequence[str] = ("car", "truck", "bicycle", "pedestrian"),
    ):
        from imkd_edge.sources.synth.layout import CLASSES

        if scenes < 1 or frames_per_scene < 1 or sweeps < 0 or not 0 < rate_hz <= 10 or seed < 0 or min(image) < 16:
            fix = "seed and sweeps >= 0, scenes and frames_per_scene >= 1, 0 < rate_hz <= 10, image at least 16 x 16"
            raise Error(Code.spec_bad_value, "a number of SynthSource is out of range", "SynthSource", fix)
        unknown = set(classes) - set(CLASSES)
        if unknown or not classes:
            what, fix = f"unknown classes {sorted(unknown)}", f"choose from {', '.join(CLASSES)}"
            raise Error(Code.spec_bad_value, what, "SynthSource(classes=)", fix)
        self.seed, self.scenes = operator.index(seed), operator.index(scenes)
        self.frames_per_scene, self.sweeps = operator.index(frames_per_scene), operator.index(sweeps)
        self.rate_hz, self.image, self.lidar = float(rate_hz), (int(image[0]), int(image[1])), lidar
        self.classes = tuple(c for c in CLASSES if c in classes)
        self.rig = rig if rig is not None else default_rig(self.image)
        for camera in self.rig.cameras:
            if camera.distortion != "none":
                what, fix = f"camera {camera.name} is distorted", "the renderer draws undistorted cameras only"
                raise Error(Code.source_bad_calibration, what, "SynthSource(rig=)", fix)
        self.names = [f"s{s:03d}-f{f:03d}" for s in range(scenes) for f in range(frames_per_scene)]
        self._cache: OrderedDict[int, _Models] = OrderedDict()  # by scene, the oldest access first
        self._cameras: list[Camera] | None = None

    # ---- the protocol of a source ----
    def __getitem__(self, name: str) -> Sample:
        return self._sample(name)[0]

    def subset(self, names: Sequence[str]) -> SynthSource:
        """The same world with these samples only, in this order; raises Error source_unknown_frame."""
        for name in names:
            self._parse(name)
        other = object.__new__(SynthSource)
        other.__dict__.update(self.__dict__, names=list(names))
        return other

    @property
    def splits(self) -> dict[str, list[str]]:
        """Names by split; no scene is in both."""
        split: dict[str, list[str]] = {"train": [], "val": []}
        for name in self.names:
            validation = self._parse(name)[0] % VALIDATION == VALIDATION - 1
            split["val" if validation else "train"].append(name)
        return split

    def moment(self, name: str) -> tuple[str, int]:
        """Scene and timestamp (ns) of a sample, without making it."""
        index, frame = self._parse(name)
        return f"s{index:03d}", ns_from_us(self._start_us(index) + us_from_s(frame / self.rate_hz))

    # ---- beyond the protocol ----
    def instances(self, name: str) -> list[int]:
        """Track number within the scene of every box of the sample's truth, in the same order."""
        models, frame = self._models(name)
        t = frame / self.rate_hz
        return near_objects(models.scene.state(t), models.scene.ego_pose(t)[0]).tolist()

    def id_images(self, name: str) -> dict[str, np.ndarray]:
        """Camera -> (2 H, 2 W) uint8 at twice the resolution: number in `instances`, 254 fixture, 255 ground or sky."""
        _, pictures = self._sample(name)
        return {camera.name: picture.ids for camera, picture in zip(self.rig.cameras, pictures)}

    # ---- making a sample ----
    def _parse(self, name: str) -> tuple[int, int]:
        """Scene and frame of a name; raises Error source_unknown_frame."""
        match = re.fullmatch(r"s(\d{3,})-f(\d{3,})", str(name))
        if not match or int(match[1]) >= self.scenes or int(match[2]) >= self.frames_per_scene:
            fix = f"names run from s000-f000 to s{self.scenes - 1:03d}-f{self.frames_per_scene - 1:03d}"
            raise Error(Code.source_unknown_frame, f"no sample {name!r}", "SynthSource", fix)
        return int(match[1]), int(match[2])

    @staticmethod
    def _start_us(scene: int) -> int:
        return EPOCH_US + scene * SCENE_US

    def _models(self, name: str) -> tuple[_Models, int]:
        """The models of a sample's scene, from the cache or made, and its frame."""
        from imkd_edge.sources.synth.camera import Renderer
        from imkd_edge.sources.synth.lidar import LidarModel
        from imkd_edge.sources.synth.mesh import SceneMesh
        from imkd_edge.sources.synth.radar import RadarModel
        from imkd_edge.sources.synth.world import Scene

        index, frame = self._parse(name)
        if index not in self._cache:
            scene = Scene(self.seed, index, (self.frames_per_scene - 1) / self.rate_hz, self.classes)
            mesh = SceneMesh(scene)
            renderer = Renderer(mesh)
            self._cache[index] = _Models(scene, mesh, renderer, RadarModel(mesh), LidarModel(mesh, renderer.ground))
            while len(self._cache) > CACHED_SCENES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(index)
        return self._cache[index], frame

    def _sample(self, name: str) -> tuple[Sample, list[Picture]]:
        models, frame = self._models(name)
        t = frame / self.rate_hz
        scene, timestamp_ns = self.moment(name)
        state = models.scene.state(t)
        pose, twist = models.scene.ego_pose(t)

        # sensors
        pictures = self._pictures(models, state, pose, frame)
        radar = self._radar(models, t)
        lidar, lidar_owner = self._lidar(models, state, pose, frame) if self.lidar else (None, None)

        # truth
        points = count_radar_points(boxes_of(models.mesh, state, pose), pose, radar, self.rig)
        cameras = [camera.name for camera in self.rig.cameras]
        sample = Sample(
            name=name,
            timestamp_ns=timestamp_ns,
            rig=self.rig,
            frames={camera: picture.pixels for camera, picture in zip(cameras, pictures)},
            radar=radar,
            ego=Ego(T_world_ego=pose, twist=twist),
            truth=truth_of_scene(models.mesh, state, pose, pictures, points, lidar_owner),
            lidar=lidar,
            camera_timestamps_ns=dict.fromkeys(cameras, timestamp_ns),
            scene=scene,
        )
        return sample, pictures

    def _pictures(self, models: _Models, state: State, pose: np.ndarray, frame: int) -> list[Picture]:
        from imkd_edge.sources.synth.camera import Camera

        if self._cameras is None:
            self._cameras = [Camera(c.K, c.T_ego_camera, c.width, c.height) for c in self.rig.cameras]
        seeds = [((self.seed * 1009 + models.scene.index) * 1009 + frame) * 16 + k for k in range(len(self._cameras))]
        return models.renderer.draw(self._cameras, models.mesh.pose(state), pose, seeds)

    def _radar(self, models: _Models, t: float) -> list[RadarSweep]:
        """The newest sweeps of every radar, newest first; sweep n of a radar is the same in every sample."""
        sweeps, scene = [], models.scene
        for k, radar in enumerate(self.rig.radars):
            phase = (k * RADAR_PHASE_US) % RADAR_PERIOD_US
            newest = (us_from_s(t) - phase) // RADAR_PERIOD_US
            for n in range(newest, newest - self.sweeps, -1):
                time_us = n * RADAR_PERIOD_US + phase
                time = s_from_us(time_us)
                pose, _ = scene.ego_pose(time)
                rng = np.random.default_rng([self.seed, scene.index, _RADAR_STREAM + k, n + 1000])
                points = models.radar.sweep(scene.state(time), pose @ radar.T_ego_radar, rng)
                timestamp_ns = ns_from_us(self._start_us(scene.index) + time_us)
                sweeps.append(RadarSweep(radar.name, points, timestamp_ns, pose))
        return sweeps

    def _lidar(
        self, models: _Models, state: State, pose: np.ndarray, frame: int
    ) -> tuple[np.ndarray, np.ndarray]:  # (N, 4) float32 in the ego frame, (N,) owners
        rng = np.random.default_rng([self.seed, models.scene.index, _LIDAR_STREAM, frame])
        points, owner = models.lidar.sweep(state, pose @ T_EGO_LIDAR, rng)
        xyz = points[:, :3].astype(float) @ T_EGO_LIDAR[:3, :3].T + T_EGO_LIDAR[:3, 3]
        return np.concatenate([xyz, points[:, 3:]], 1).astype(np.float32), owner
