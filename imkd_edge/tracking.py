"""Tracker: the boxes of the frames of one drive -> tracks of objects, with ids and velocities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import imkd_edge._core as _core
from imkd_edge.frames import Ego
from imkd_edge.result import Detection, Result
from imkd_edge.spec import ModelSpec


@dataclass(frozen=True)
class ClassMotion:
    """How objects of a class move and how well a detector measures them; standard deviations along each axis."""

    position_std: float = 0.5  # m, of a detection's centre
    velocity_std: float = 2.0  # m/s, of a detection's velocity
    speed_std: float = 8.0  # m/s, of the velocity of an object that was detected once, without a velocity
    acceleration: float = 2.0  # m/s, by which the velocity may change within 1 s


def class_motion(name: str) -> ClassMotion:
    """The tracker's values for a class name; those of ClassMotion() for a name that it does not know."""
    return ClassMotion(*_core.class_motion(name)[1:])


@dataclass(frozen=True)
class Track(Detection):
    """One object, in the ego frame at the frame's reference time.

    `score` is that of the track: it rises with each detection and falls without one. `velocity` is over ground, or
    relative to the ego where `TrackerHealth.over_ground` is False; NaN after a single detection without a velocity.
    """

    id: int  # from 1; never repeats in the life of a Tracker
    # tentative: its score has not reached confirm_score; confirmed: it has, and the object is detected in this frame;
    # coasting: it has, and the box is extrapolated
    state: str
    velocity_measured: bool  # False: no detection of the object had a velocity; it follows from positions alone
    velocity_std: float  # m/s, along each axis
    age: float  # s since the first detection
    coasting: float  # s since the last detection
    hits: int  # detections
    detection: int | None  # index into Result.detections; None: none in this frame

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        numbers = {name: round(getattr(self, name), 4) for name in ("velocity_std", "age", "coasting")}
        first = {"id": self.id, "state": self.state, **super().to_dict()}
        rest = {"velocity_measured": self.velocity_measured, **numbers, "hits": self.hits, "detection": self.detection}
        return {**first, **rest}


@dataclass(frozen=True)
class TrackerHealth:
    """State of a Tracker after its last update."""

    # False: neither pose nor twist of the ego is known; the objects are tracked in the ego frame
    over_ground: bool
    detections_invalid: int  # of the last frame, ignored: not finite or beyond 1e5, a size <= 0, a score outside 0..1
    detections_overflow: int  # of the last frame, ignored: more than the spec's max_detections, or no free track
    restarts: int  # so often all tracks were discarded
    repeats: int  # frames ignored because of the time of the frame before


class Tracker:
    """Tracks of the objects of one drive, from the results of a Detector.

    Boxes of each class are assigned to the tracks by the distance of the centres (Hungarian method), within three
    standard deviations of the predicted distance. Each object has a Kalman filter with constant velocity, in a frame
    that is fixed to the ground: the ego's path is integrated from `Result.ego`, poses first, then the twist. A frame
    whose ego motion is unknown continues the last twist for at most 1 s.

    A frame with the time of the frame before is ignored: its tracks have no detection. The tracker restarts, with new
    ids, where the time goes back, after more than max_gap, and where the ego motion becomes known or unknown, or jumps.
    One thread at a time.

    Args:
        spec: of the detector (`Detector.spec`).
        birth_score: a detection below it continues tracks but begins none; 0 to 1.
        confirm_score: of a track, from which it is confirmed; 0 to 1.
        max_age: s since its last detection, after which a track ends; at most 60.
        max_gap: s from frame to frame, after which the tracker restarts; at most 60.
        max_tracks: 1 to 4096.
        classes: class name -> values that replace those of `class_motion`.

    Raises:
        Error: 104 for an option out of range or a class that the spec lacks.
    """

    def __init__(
        self,
        spec: ModelSpec,
        birth_score: float = 0.2,
        confirm_score: float = 0.5,
        max_age: float = 2.0,
        max_gap: float = 2.0,
        max_tracks: int = 512,
        classes: Mapping[str, ClassMotion] | None = None,
    ) -> None:
        motions = [(name, *vars(motion).values()) for name, motion in (classes or {}).items()]
        self._core: Any = _core.Tracker(spec, birth_score, confirm_score, max_age, max_gap, max_tracks, motions)
        self._class_names = tuple(one.name for one in spec.head.classes)
        self._scene: str | None = None

    def update(self, result: Result) -> list[Track]:
        """The tracks after the next frame, by id.

        Raises:
            Error: 201, 202, 205 for arrays of another dtype or shape, or a time that is no int64. A box that is not
                finite is counted in `health`.
        """
        return self.update_boxes(result.boxes, result.scores, result.labels, result.timestamp_ns, result.ego)

    def follow(self, result: Result, scene: str = "") -> Result:
        """The result with its tracks, of a drive named `scene`: another one than before discards the tracks.

        Raises:
            Error: as `update`.
        """
        if self._scene not in (None, scene):
            self.reset()
        self._scene = scene
        return replace(result, tracks=self.update(result))

    def update_boxes(
        self, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, timestamp_ns: int, ego: Ego | None
    ) -> list[Track]:
        """As `update`, for boxes that are not in a Result.

        Args:
            boxes: (M, 9) float32 x, y, z, length, width, height m, yaw rad, vx, vy m/s or NaN, in the ego frame.
            scores: (M,) float32.
            labels: (M,) int32, index into the spec's classes.
            timestamp_ns: of the frame.
            ego: pose or twist at that time; None: unknown.
        """
        fields = self._core.update(boxes, scores, labels, timestamp_ns, ego)
        tracks = []
        for box, (id, state, label, score, measured, std, age, coasting, hits, index) in zip(
            fields["boxes"], fields["rows"]
        ):
            name, detection = self._class_names[label], index if index >= 0 else None
            tracks.append(
                Track(
                    name, score, box[0:3], box[3:6], float(box[6]), box[7:9], id, state,
                    measured, std, age, coasting, hits, detection,
                )
            )  # fmt: skip
        return tracks

    @property
    def health(self) -> TrackerHealth:
        """State after the last update."""
        return TrackerHealth(**self._core.health())

    def reset(self) -> None:
        """Discard the tracks; ids continue."""
        self._core.reset()
