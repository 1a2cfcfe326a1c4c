"""What is known of the frames of a source without their sensor files: times, ego motion, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from imkd_edge.frames import Ego
from imkd_edge.sources.base import Sample
from imkd_edge.sources.folder.format import LIDAR, RACK, Frame
from imkd_edge.sources.geometry import inverse, yaw_of

MAX_STEP = 1.5  # s between two poses that give a velocity


@dataclass(frozen=True)
class Moment:
    """A frame without its sensor data."""

    name: str
    scene: str
    timestamp_ns: int
    cameras: Mapping[str, int]  # name -> time, ns
    radars: Mapping[str, int]  # name -> time of the newest sweep, ns
    lidar: bool
    ego: Ego | None
    boxes: np.ndarray | None  # (M, 9) as in Truth; None: not labelled
    labels: Sequence[str]

    @classmethod
    def of_frame(cls, frame: Frame) -> Moment:
        """Of a line of a drive folder."""
        now = frame.timestamp_ns
        objects = None if frame.labels is None else [item for item in frame.labels.objects if item[1] != RACK]
        newest = {
            name: max(now if r.timestamp_ns is None else r.timestamp_ns for r in readings)
            for name, readings in frame.radars.items()
            if readings
        }
        return cls(
            name=frame.name,
            scene=frame.scene,
            timestamp_ns=now,
            cameras={name: now if r.timestamp_ns is None else r.timestamp_ns for name, r in frame.cameras.items()},
            radars=newest,
            lidar=frame.lidar is not None,
            ego=frame.ego,
            boxes=None if objects is None else np.array([box for box, _, _ in objects]).reshape(-1, 9),
            labels=[label for _, label, _ in objects or []],
        )

    @classmethod
    def of_sample(cls, sample: Sample) -> Moment:
        """Of a sample of any source."""
        now, radars = sample.timestamp_ns, dict[str, int]()
        for sweep in sample.radar:
            time = now if sweep.timestamp_ns is None else sweep.timestamp_ns
            radars[sweep.radar] = max(time, radars.get(sweep.radar, time))
        return cls(
            name=sample.name,
            scene=sample.scene,
            timestamp_ns=now,
            cameras={name: sample.camera_timestamps_ns.get(name, now) for name in sample.frames},
            radars=radars,
            lidar=sample.lidar is not None,
            ego=sample.ego,
            boxes=None if sample.truth is None else sample.truth.boxes,
            labels=[] if sample.truth is None else sample.truth.labels,
        )


@dataclass
class Moments:
    """All moments of a source, column by column."""

    names: list[str] = field(default_factory=list)
    scenes: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)  # ns
    offsets: dict[str, list[float]] = field(default_factory=dict)  # sensor -> s from the frame's time
    rows: dict[str, list[int]] = field(default_factory=dict)  # sensor -> frames that have it, indices into names
    kinds: dict[str, str] = field(default_factory=dict)  # sensor -> camera, radar, lidar
    ego: list[Ego | None] = field(default_factory=list)
    lidar: list[bool] = field(default_factory=list)
    labelled: list[bool] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)  # of every object
    frame_of: list[int] = field(default_factory=list)  # of every object, index into names
    _boxes: list[np.ndarray] = field(default_factory=list)

    def add(self, moment: Moment) -> None:
        index = len(self.names)
        self.names.append(moment.name)
        self.scenes.append(moment.scene)
        self.times.append(moment.timestamp_ns)
        self.ego.append(moment.ego)
        for kind, readings in (("camera", moment.cameras), ("radar", moment.radars)):
            for sensor, time in readings.items():
                self.kinds[sensor] = kind
                self.offsets.setdefault(sensor, []).append((time - moment.timestamp_ns) * 1e-9)
                self.rows.setdefault(sensor, []).append(index)
        self.lidar.append(moment.lidar)
        if moment.lidar:
            self.kinds[LIDAR] = LIDAR
            self.offsets.setdefault(LIDAR, []).append(0.0)
            self.rows.setdefault(LIDAR, []).append(index)
        self.labelled.append(moment.boxes is not None)
        if moment.boxes is not None and len(moment.boxes):
            self._boxes.append(np.asarray(moment.boxes, np.float32))
            self.labels += list(moment.labels)
            self.frame_of += [index] * len(moment.boxes)

    @property
    def boxes(self) -> np.ndarray:
        """(M, 9) float32 boxes of every object, as in Truth."""
        return np.concatenate([np.zeros((0, 9), np.float32), *self._boxes])

    def twists(self) -> np.ndarray:
        """(N, 3) vx, vy m/s, yaw rate rad/s by the poses of a frame and the one before it in its scene; nan else."""
        result = np.full((len(self.names), 3), np.nan)
        last: dict[str, int] = {}
        for index, (scene, ego) in enumerate(zip(self.scenes, self.ego)):
            if ego is None or ego.T_world_ego is None:
                continue
            before = last.get(scene)
            last[scene] = index
            if before is None:
                continue
            seconds = (self.times[index] - self.times[before]) * 1e-9
            earlier = self.ego[before]
            if 0 < seconds <= MAX_STEP and earlier is not None and earlier.T_world_ego is not None:
                # halfway between the two frames' axes, so that a turn does not look like sideways motion
                step = inverse(np.asarray(earlier.T_world_ego)) @ np.asarray(ego.T_world_ego)
                turn = yaw_of(step[:3, :3])
                cos, sin = np.cos(-turn / 2), np.sin(-turn / 2)
                x, y = step[:2, 3]
                result[index] = np.array([cos * x - sin * y, sin * x + cos * y, turn]) / seconds
        return result
