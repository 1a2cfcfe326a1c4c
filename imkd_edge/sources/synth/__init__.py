"""SynthSource: a seeded synthetic street world seen by six cameras, five radars and, if wanted, a LiDAR."""

from __future__ import annotations

import operator
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample, Truth

if TYPE_CHECKING:  # these need OpenCV, so they are imported when the first sample is made
    from imkd_edge.sources.synth.camera import Camera, Picture, Renderer
    from imkd_edge.sources.synth.lidar import LidarModel
    from imkd_edge.sources.synth.mesh import SceneMesh
    from imkd_edge.sources.synth.radar import RadarModel
    from imkd_edge.sources.synth.roads import State
    from imkd_edge.sources.synth.world import Scene

TRUTH_RANGE = 60.0  # m from the ego, of labelled objects
RADAR_PERIOD_US = 75_000
EPOCH_US = 1_600_000_000_000_000  # time 0 of scene 0
SCENE_US = 1_000_000_000  # between the starts of scenes
KEPT_SCENES = 4  # in memory; one takes about 25 MB
T_EGO_LIDAR = np.array([[0.0, 1.0, 0.0, 0.94], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.84], [0.0, 0.0, 0.0, 1.0]])

_CAMERAS = (  # x, y, z m, yaw degrees, focal length per image width: those of a nuScenes vehicle, clockwise from the front
    ("CAM_FRONT", 1.70, 0.02, 1.51, 0.0, 0.7914),
    ("CAM_FRONT_RIGHT", 1.55, -0.49, 1.50, -56.0, 0.7914),
    ("CAM_BACK_RIGHT", 1.01, -0.48, 1.56, -110.0, 0.7914),
    ("CAM_BACK", 0.03, 0.0, 1.58, 180.0, 0.5057),
    ("CAM_BACK_LEFT", 1.03, 0.48, 1.59, 109.0, 0.7914),
    ("CAM_FRONT_LEFT", 1.52, 0.49, 1.51, 55.0, 0.7914),
)
_RADARS = (
    ("RADAR_FRONT", 3.41, 0.0, 0.50, 0.0),
    ("RADAR_FRONT_RIGHT", 2.42, -0.80, 0.77, -90.0),
    ("RADAR_BACK_RIGHT", -0.56, -0.62, 0.53, -175.0),
    ("RADAR_BACK_LEFT", -0.56, 0.63, 0.53, 175.0),
    ("RADAR_FRONT_LEFT", 2.42, 0.80, 0.78, 90.0),
)


def _yaw_pose(x: float, y: float, z: float, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1]])


def default_rig(image: tuple[int, int] = (480, 270)) -> SensorRig:
    """A nuScenes-like rig: five cameras of 65 degrees, one of 89 to the rear (sold as 70 and 110), and five radars around.

    Args:
        image: width and height of the cameras, px.
    """
    width, height = image
    optical = np.array(
        [[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    )  # camera axes (right, down, forward) in a frame that looks along x
    cameras = []
    for name, x, y, z, yaw, focal in _CAMERAS:
        T = _yaw_pose(x, y, z, yaw)
        T[:3, :3] = T[:3, :3] @ optical
        f = focal * width
        K = np.array([[f, 0, 0.51 * width - 0.5], [0, f, 0.546 * height - 0.5], [0, 0, 1]])
        cameras.append(CameraCalibration(name=name, width=width, height=height, K=K, T_ego_camera=T))
    radars = [RadarCalibration(name=name, T_ego_radar=_yaw_pose(*pose)) for name, *pose in _RADARS]
    return SensorRig(cameras=cameras, radars=radars)


@dataclass
class _Stage:
    """A scene with everything that is built once for it."""

    scene: Scene
    mesh: SceneMesh
    renderer: Renderer
    radar: RadarModel
    lidar: LidarModel


class SynthSource:
    """Random-access synthetic recordings; a sample depends on (seed, scene, frame) and the options alone, not on the order of access.

    840 training and 120 validation frames by default; nothing is made before it is asked for.
    Every eighth scene (index 7, 15, ...) is validation: `splits["train"]` and `splits["val"]` hold names of disjoint scenes.

    One thread at a time: drawing borrows the scene's map.

    Args:
        seed: of the whole world.
        scenes: number of recordings, each of another street.
        frames_per_scene: key frames of each.
        image: width and height of the raw cameras, px; 1600 x 900 is nuScenes' own, 480 x 270 its twin with the same view.
        rate_hz: key frames per second.
        sweeps: radar sweeps per radar and sample, 75 ms apart, the newest at or up to 75 ms before the sample.
        lidar: also simulate LIDAR_TOP (slower; for training a teacher).
        rig: other cameras (undistorted) and radars than `default_rig(image)`.
        classes: which of car, truck, bus, motorcycle, bicycle, pedestrian there are.
    Raises:
        Error: spec_bad_value for impossible numbers or unknown classes, source_bad_calibration for a distorted camera.
    """

    kind = "synth"
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
        from imkd_edge.sources.synth.world import CLASSES

        if scenes < 1 or frames_per_scene < 1 or sweeps < 0 or not 0 < rate_hz <= 10 or seed < 0 or min(image) < 16:
            raise Error(
                Code.spec_bad_value,
                "a number of SynthSource is out of range",
                "SynthSource",
                "seed and sweeps >= 0, scenes and frames_per_scene >= 1, 0 < rate_hz <= 10, image at least 16 x 16",
            )
        unknown = set(classes) - set(CLASSES)
        if unknown or not classes:
            raise Error(
                Code.spec_bad_value,
                f"unknown classes {sorted(unknown)}",
                "SynthSource(classes=)",
                f"choose from {', '.join(CLASSES)}",
            )
        self.seed, self.scenes = operator.index(seed), operator.index(scenes)
        self.frames_per_scene, self.sweeps = operator.index(frames_per_scene), operator.index(sweeps)
        self.rate_hz, self.image, self.lidar = float(rate_hz), (int(image[0]), int(image[1])), lidar
        self.classes = tuple(c for c in CLASSES if c in classes)
        self.rig = rig if rig is not None else default_rig(self.image)
        for camera in self.rig.cameras:
            if camera.distortion != "none":
                raise Error(
                    Code.source_bad_calibration,
                    f"camera {camera.name} is distorted",
                    "SynthSource(rig=)",
                    "the renderer draws undistorted cameras only",
                )
        self.names = [f"s{s:03d}-f{f:03d}" for s in range(scenes) for f in range(frames_per_scene)]
        self._stages: OrderedDict[int, _Stage] = OrderedDict()
        self._cameras: list[Camera] | None = None

    # -- the protocol of a source -------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sample]:
        return (self[name] for name in self.names)

    def __getitem__(self, name: str) -> Sample:
        return self._sample(name, None)

    def subset(self, names: Sequence[str]) -> SynthSource:
        """The same world with only these samples, in this order."""
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
            split["val" if self._parse(name)[0] % 8 == 7 else "train"].append(name)
        return split

    def moment(self, name: str) -> tuple[str, int]:
        """Scene and timestamp (ns) of a sample, without making it."""
        index, frame = self._parse(name)
        return f"s{index:03d}", (EPOCH_US + index * SCENE_US + round(frame / self.rate_hz * 1e6)) * 1000

    # -- beyond the protocol ------------------------------------------------------------------------------------------
    def instances(self, name: str) -> list[int]:
        """Track number within the scene of every box of the sample's truth, in the same order."""
        stage, frame = self._locate(name)
        state, pose = stage.scene.state(frame / self.rate_hz), stage.scene.ego_pose(frame / self.rate_hz)[0]
        return self._near(state, pose).tolist()

    def id_images(self, name: str) -> dict[str, np.ndarray]:
        """Camera -> (2 H, 2 W) uint8: index into `instances` numbering, 254 fixture, 255 ground or sky, at twice the resolution."""
        ids: dict[str, np.ndarray] = {}
        self._sample(name, ids)
        return ids

    # -- making a sample ----------------------------------------------------------------------------------------------
    def _parse(self, name: str) -> tuple[int, int]:
        match = re.fullmatch(r"s(\d{3,})-f(\d{3,})", str(name))
        if not match or int(match[1]) >= self.scenes or int(match[2]) >= self.frames_per_scene:
            raise Error(
                Code.source_unknown_frame,
                f"no sample {name!r}",
                "SynthSource",
                f"names run from s000-f000 to s{self.scenes - 1:03d}-f{self.frames_per_scene - 1:03d}",
            )
        return int(match[1]), int(match[2])

    def _locate(self, name: str) -> tuple[_Stage, int]:
        from imkd_edge.sources.synth.camera import Renderer
        from imkd_edge.sources.synth.lidar import LidarModel
        from imkd_edge.sources.synth.mesh import SceneMesh
        from imkd_edge.sources.synth.radar import RadarModel
        from imkd_edge.sources.synth.world import Scene

        index, frame = self._parse(name)
        if index not in self._stages:
            scene = Scene(self.seed, index, (self.frames_per_scene - 1) / self.rate_hz, self.classes)
            mesh = SceneMesh(scene)
            renderer = Renderer(mesh)
            self._stages[index] = _Stage(scene, mesh, renderer, RadarModel(mesh), LidarModel(mesh, renderer.ground))
            while len(self._stages) > KEPT_SCENES:
                self._stages.popitem(last=False)
        self._stages.move_to_end(index)
        return self._stages[index], frame

    def _sample(self, name: str, ids: dict[str, np.ndarray] | None) -> Sample:
        stage, frame = self._locate(name)
        index = stage.scene.index
        t = frame / self.rate_hz
        start_us = EPOCH_US + index * SCENE_US
        scene, timestamp = self.moment(name)
        state = stage.scene.state(t)
        pose, twist = stage.scene.ego_pose(t)
        pictures = self._pictures(stage, state, pose, frame)
        names = [c.name for c in self.rig.cameras]
        if ids is not None:
            ids.update((n, p.ids) for n, p in zip(names, pictures))
        radar = self._radar(stage, t, start_us)
        lidar, lidar_owner = None, None
        if self.lidar:
            rng = np.random.default_rng([self.seed, index, 5, frame])
            points, lidar_owner = stage.lidar.sweep(state, pose @ T_EGO_LIDAR, rng)
            xyz = points[:, :3].astype(float) @ T_EGO_LIDAR[:3, :3].T + T_EGO_LIDAR[:3, 3]
            lidar = np.concatenate([xyz, points[:, 3:]], 1).astype(np.float32)
        truth = self._truth(stage, state, pose, pictures, radar, lidar_owner)
        return Sample(
            name=name,
            timestamp_ns=timestamp,
            rig=self.rig,
            frames={n: p.pixels for n, p in zip(names, pictures)},
            radar=radar,
            ego=Ego(T_world_ego=pose, twist=twist),
            truth=truth,
            lidar=lidar,
            camera_timestamps_ns=dict.fromkeys(names, timestamp),
            scene=scene,
        )

    def _pictures(self, stage: _Stage, state: State, pose: np.ndarray, frame: int) -> list[Picture]:
        from imkd_edge.sources.synth.camera import Camera

        if self._cameras is None:
            self._cameras = [Camera(c.K, c.T_ego_camera, c.width, c.height) for c in self.rig.cameras]
        seeds = [((self.seed * 1009 + stage.scene.index) * 1009 + frame) * 16 + k for k in range(len(self._cameras))]
        return stage.renderer.draw(self._cameras, stage.mesh.pose(state), pose, seeds)

    def _radar(self, stage: _Stage, t: float, start_us: int) -> list[RadarSweep]:
        """The newest sweeps of every radar, newest first; sweep n of a radar is the same whichever sample asks for it."""
        out = []
        now_us = round(t * 1e6)
        for k, radar in enumerate(self.rig.radars):
            phase = (k * 13_000) % RADAR_PERIOD_US
            newest = (now_us - phase) // RADAR_PERIOD_US
            for n in range(newest, newest - self.sweeps, -1):
                time_us = n * RADAR_PERIOD_US + phase
                pose, _ = stage.scene.ego_pose(time_us * 1e-6)
                rng = np.random.default_rng([self.seed, stage.scene.index, 10 + k, n + 1000])
                points = stage.radar.sweep(stage.scene.state(time_us * 1e-6), pose @ radar.T_ego_radar, rng)
                out.append(
                    RadarSweep(
                        radar=radar.name, points=points, timestamp_ns=(start_us + time_us) * 1000, T_world_ego=pose
                    )
                )
        return out

    @staticmethod
    def _near(state: State, pose: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.hypot(*(state.xy - pose[:2, 3]).T) < TRUTH_RANGE)

    def _truth(
        self,
        stage: _Stage,
        state: State,
        pose: np.ndarray,
        pictures: list[Picture],
        radar: list[RadarSweep],
        lidar_owner: np.ndarray | None,
    ) -> Truth:
        near = self._near(state, pose)
        R = pose[:2, :2]  # columns: ego axes in the world
        size = stage.mesh.sizes[near]
        boxes = np.zeros((len(near), 9))
        boxes[:, :2] = (state.xy[near] - pose[:2, 3]) @ R
        boxes[:, 2] = size[:, 2] / 2 - pose[2, 3]
        boxes[:, 3:6] = size
        turn = state.yaw[near] - np.arctan2(R[1, 0], R[0, 0])
        boxes[:, 6] = np.arctan2(np.sin(turn), np.cos(turn))
        boxes[:, 7:9] = state.velocity[near] @ R
        visible = np.sum([p.visible for p in pictures], 0)[near]
        total = np.sum([p.total for p in pictures], 0)[near]
        share = visible / np.maximum(total, 1)  # over all cameras together, as nuScenes defines visibility
        occlusion = np.select([share >= 0.8, share >= 0.6, share >= 0.4], [0, 1, 2], 3).astype(np.int8)
        counted = (
            np.bincount(lidar_owner[lidar_owner >= 0], minlength=len(stage.mesh.sizes))[near]
            if lidar_owner is not None
            else np.full(len(near), -1)
        )
        return Truth(
            boxes=boxes,
            labels=[stage.scene.objects.kinds[i] for i in near],
            occlusion=occlusion,
            radar_points=self._radar_points(boxes, pose, radar),
            lidar_points=counted.astype(np.int32),
        )

    def _radar_points(self, boxes: np.ndarray, pose: np.ndarray, radar: list[RadarSweep]) -> np.ndarray:
        """Returns of each radar's newest sweep inside each box's footprint (a radar knows no height), (M,) int32."""
        T_radar = {r.name: r.T_ego_radar for r in self.rig.radars}
        seen: set[str] = set()
        count = np.zeros(len(boxes), np.int32)
        for sweep in radar:
            if sweep.radar in seen:
                continue
            seen.add(sweep.radar)
            T = np.linalg.inv(pose) @ sweep.T_world_ego @ T_radar[sweep.radar]
            points = sweep.points[:, :3].astype(float) @ T[:3, :3].T + T[:3, 3]
            gap = points[None, :, :2] - boxes[:, None, :2]
            c, s = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
            x, y = gap[..., 0] * c + gap[..., 1] * s, -gap[..., 0] * s + gap[..., 1] * c
            count += (
                ((np.abs(x) <= boxes[:, 3, None] / 2) & (np.abs(y) <= boxes[:, 4, None] / 2)).sum(1).astype(np.int32)
            )
        return count
