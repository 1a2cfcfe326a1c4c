"""The synthetic world as a source: which samples there are, and how one is made."""

from __future__ import annotations

import operator
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.geometry import inverse
from imkd_edge.sources.nuscenes.vehicle import T_EGO_LIDAR
from imkd_edge.sources.remount import remount, remount_rig
from imkd_edge.sources.synth.objects import Catalogue, ClassNames
from imkd_edge.sources.synth.rig import as_measured, load_rig, on_the_ground
from imkd_edge.sources.synth.truth import boxes_of, count_radar_points, near_objects, truth_of_scene
from imkd_edge.sources.synth.world import Drive, Scene
from imkd_edge.sources.times import ns_from_us, s_from_us, us_from_s

if TYPE_CHECKING:  # these need OpenCV, so they are imported for the first sample
    from imkd_edge.sources.synth.camera import Camera, Picture, Renderer
    from imkd_edge.sources.synth.lidar import LidarModel
    from imkd_edge.sources.synth.mesh import SceneMesh
    from imkd_edge.sources.synth.radar import RadarModel
    from imkd_edge.sources.synth.roads import State

RADAR_PERIOD_US = 75_000
RADAR_PHASE_US = 13_000  # of each radar after the one before
EPOCH_US = 1_600_000_000_000_000  # time 0 of scene 0
SCENE_US = 1_000_000_000  # between the starts of scenes
VALIDATION = 8  # every eighth scene
MAX_EXPOSURE = 0.1  # s
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
        rig: any cameras and radars, or the path of a rig JSON file, instead of `default_rig(image)`: any mounting, lens
            and kind of radial velocity. The world's ground is the rig's ground plane, z = 0 where it names none. What
            lies 95 degrees or more off the axis of a fisheye is black.
        classes: some of car, truck, bus, motorcycle, bicycle, pedestrian, forklift, pallet, or a text with them,
            separated by commas; or class name -> one of these; or class name -> {"like": one of these, "size": [length,
            width, height] m}.
        exposure: s from the oldest camera to the sample's time: camera k of n exposes exposure (k + 1) / n before it.
        speed: m/s of the ego; by default 0 or 3 to 13 by scene, slowly varying.
        turn_rate: degrees/s in the middle of each turn, to both sides in alternation; needs `speed`.
    Raises:
        Error: spec_bad_value for impossible numbers or unknown classes, and what SensorRig.load raises.
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
        rig: SensorRig | str | PathLike[str] | None = None,
        classes: ClassNames = ("car", "truck", "bicycle", "pedestrian"),
        exposure: float = 0.0,
        speed: float | None = None,
        turn_rate: float | None = None,
    ):
        if scenes < 1 or frames_per_scene < 1 or sweeps < 0 or not 0 < rate_hz <= 30 or seed < 0 or min(image) < 16:
            fix = "seed and sweeps >= 0, scenes and frames_per_scene >= 1, 0 < rate_hz <= 30, image at least 16 x 16"
            raise Error(Code.spec_bad_value, "a number of SynthSource is out of range", "SynthSource", fix)
        if not 0 <= exposure <= MAX_EXPOSURE:
            what, fix = f"exposure is {exposure} s", f"0 to {MAX_EXPOSURE} s"
            raise Error(Code.spec_bad_value, what, "SynthSource(exposure=)", fix)
        self.drive = Drive(speed, None if turn_rate is None else float(np.radians(turn_rate)))
        self.drive.check()
        self.seed, self.scenes = operator.index(seed), operator.index(scenes)
        self.frames_per_scene, self.sweeps = operator.index(frames_per_scene), operator.index(sweeps)
        self.rate_hz, self.image, self.lidar = float(rate_hz), (int(image[0]), int(image[1])), lidar
        self.catalogue = Catalogue.of(classes)
        self.classes, self.exposure = self.catalogue.names, float(exposure)
        self.rig = load_rig(rig, self.image)
        self._T_ego_ground = on_the_ground(self.rig.ground_plane)
        # the rig on the ground frame, in which the world is made
        self._rig = self.rig if self._T_ego_ground is None else remount_rig(self.rig, inverse(self._T_ego_ground))
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

        index, frame = self._parse(name)
        if index not in self._cache:
            duration = (self.frames_per_scene - 1) / self.rate_hz
            scene = Scene(self.seed, index, duration, self.catalogue, self.drive)
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
        cameras = [camera.name for camera in self.rig.cameras]
        pictures = self._pictures(models, frame)
        radar = self._radar(models, t)
        lidar, lidar_owner = self._lidar(models, state, pose, frame) if self.lidar else (None, None)

        # truth
        points = count_radar_points(boxes_of(models.mesh, state, pose), pose, radar, self._rig)
        sample = Sample(
            name=name,
            timestamp_ns=timestamp_ns,
            rig=self._rig,
            frames={camera: picture.pixels for camera, picture in zip(cameras, pictures)},
            radar=radar,
            ego=Ego(T_world_ego=pose, twist=twist),
            truth=truth_of_scene(models.mesh, state, pose, pictures, points, lidar_owner),
            lidar=lidar,
            camera_timestamps_ns={c: timestamp_ns - ns_from_us(d) for c, d in zip(cameras, self._delays_us())},
            scene=scene,
        )
        if self._T_ego_ground is not None:
            sample = replace(remount(sample, self._T_ego_ground), rig=self.rig)
        return sample, pictures

    def _delays_us(self) -> list[int]:
        """How long before the sample's time each camera exposes."""
        count = len(self.rig.cameras)
        return [us_from_s(self.exposure * (k + 1) / count) for k in range(count)]

    def _pictures(self, models: _Models, frame: int) -> list[Picture]:
        """One picture per camera, of the world and from the ego's pose at its exposure."""
        from imkd_edge.sources.synth.camera import Camera

        if self._cameras is None:
            self._cameras = [
                Camera(c.K, c.T_ego_camera, c.width, c.height, c.distortion, tuple(c.coefficients))
                for c in self._rig.cameras
            ]
        seeds = [((self.seed * 1009 + models.scene.index) * 1009 + frame) * 16 + k for k in range(len(self._cameras))]
        pictures: list[Picture] = []
        for delay, group in groupby(zip(self._delays_us(), self._cameras, seeds), itemgetter(0)):
            t = frame / self.rate_hz - s_from_us(delay)
            posed, (pose, _) = models.mesh.pose(models.scene.state(t)), models.scene.ego_pose(t)
            _, cameras, noise = zip(*group)
            pictures += models.renderer.draw(list(cameras), posed, pose, list(noise))
        return pictures

    def _radar(self, models: _Models, t: float) -> list[RadarSweep]:
        """The newest sweeps of every radar, newest first; sweep n of a radar is the same in every sample."""
        sweeps, scene = [], models.scene
        for k, radar in enumerate(self._rig.radars):
            phase = (k * RADAR_PHASE_US) % RADAR_PERIOD_US
            newest = (us_from_s(t) - phase) // RADAR_PERIOD_US
            for n in range(newest, newest - self.sweeps, -1):
                time_us = n * RADAR_PERIOD_US + phase
                time = s_from_us(time_us)
                pose, twist = scene.ego_pose(time)
                rng = np.random.default_rng([self.seed, scene.index, _RADAR_STREAM + k, n + 1000])
                points = models.radar.sweep(scene.state(time), pose @ radar.T_ego_radar, rng)
                timestamp_ns = ns_from_us(self._start_us(scene.index) + time_us)
                sweeps.append(RadarSweep(radar.name, as_measured(points, radar, twist), timestamp_ns, pose))
        return sweeps

    def _lidar(
        self, models: _Models, state: State, pose: np.ndarray, frame: int
    ) -> tuple[np.ndarray, np.ndarray]:  # (N, 4) float32 in the ego frame, (N,) owners
        rng = np.random.default_rng([self.seed, models.scene.index, _LIDAR_STREAM, frame])
        points, owner = models.lidar.sweep(state, pose @ T_EGO_LIDAR, rng)
        xyz = points[:, :3].astype(float) @ T_EGO_LIDAR[:3, :3].T + T_EGO_LIDAR[:3, 3]
        return np.concatenate([xyz, points[:, 3:]], 1).astype(np.float32), owner
