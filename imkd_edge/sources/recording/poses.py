"""The tree of frames of a recording, and poses between their times: translations linear, rotations by slerp."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from imkd_edge.errors import Code, Error
from imkd_edge.sources.geometry import has_rotation, inverse, transform_of
from imkd_edge.sources.recording.messages import Transform

MAX_GAP = 500_000_000  # ns between two poses that are interpolated
MAX_BEYOND = 100_000_000  # ns before the first or behind the last pose that the nearest two extrapolate to
_MOVED = 0.01, np.cos(np.radians(0.25))  # m, cos of half an angle: a mounting that moves by more is not fixed


class Poses:
    """Poses of one frame in another by time.

    Args:
        times: (N,) int64 ns, any order; of several at one time the first counts.
        translations: (N, 3) m.
        quaternions: (N, 4) w, x, y, z.
    Raises:
        ValueError for a quaternion without a rotation or a number that is not finite.
    """

    def __init__(self, times: ArrayLike, translations: np.ndarray, quaternions: np.ndarray):
        stamps, first = np.unique(np.asarray(times, np.int64), return_index=True)
        self.times = stamps
        self.translations = np.asarray(translations, np.float64).reshape(-1, 3)[first]
        rotations = np.asarray(quaternions, np.float64).reshape(-1, 4)[first]
        if not np.isfinite(self.translations).all() or not has_rotation(rotations).all():
            raise ValueError("a pose is not finite, or its quaternion has no rotation")
        self.quaternions = rotations / np.linalg.norm(rotations, axis=1, keepdims=True)

    def __len__(self) -> int:
        return len(self.times)

    def at(self, time_ns: int) -> np.ndarray | None:
        """(4, 4) pose at a time; None in a gap above MAX_GAP and beyond MAX_BEYOND."""
        if len(self) == 1:
            exact = abs(int(self.times[0]) - time_ns) <= MAX_BEYOND
            return transform_of(self.translations[0], self.quaternions[0]) if exact else None
        bracket = bracket_of(self.times, time_ns)
        if bracket is None:
            return None
        i, share = bracket
        translation = (1 - share) * self.translations[i] + share * self.translations[i + 1]
        return transform_of(translation, slerp(self.quaternions[i], self.quaternions[i + 1], share))

    def first(self) -> np.ndarray:
        """(4, 4) the first pose, of at least one."""
        return transform_of(self.translations[0], self.quaternions[0])

    def moves(self) -> bool:
        """Whether the pose changes by more than 1 cm or half a degree."""
        if not len(self):
            return False
        offset, least = _MOVED
        apart = np.linalg.norm(self.translations - self.translations[0], axis=1)
        return bool((apart > offset).any() or (np.abs(self.quaternions @ self.quaternions[0]) < least).any())


def bracket_of(times: np.ndarray, time_ns: int) -> tuple[int, float] | None:
    """Index i and share s with the time at (1 - s) times[i] + s times[i + 1]; None in a gap or beyond the ends."""
    if len(times) < 2 or not times[0] - MAX_BEYOND <= time_ns <= times[-1] + MAX_BEYOND:
        return None
    i = int(np.clip(np.searchsorted(times, time_ns, "right") - 1, 0, len(times) - 2))
    gap = int(times[i + 1] - times[i])
    share = (time_ns - int(times[i])) / gap
    if gap > MAX_GAP and share not in (0.0, 1.0):
        return None
    return i, share


def slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """Unit quaternion on the shorter great arc from a to b (Shoemake, 1985); shares outside 0 to 1 extrapolate."""
    cosine = float(a @ b)
    if cosine < 0:
        b, cosine = -b, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:
        result = (1 - share) * a + share * b
    else:
        result = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    return result / np.linalg.norm(result)


class PoseLog:
    """Poses of one frame in its parent as they come, in compact form."""

    def __init__(self, parent: str):
        self.parent = parent
        self.times = array("q")  # ns
        self.values = array("d")  # x, y, z m, w, x, y, z of each

    def add(self, transform: Transform, stamp_ns: int) -> None:
        """Takes a pose, unless it repeats the one before it."""
        values = (*transform.translation, *transform.quaternion)
        if self.times and self.times[-1] == stamp_ns and tuple(self.values[-7:]) == values:
            return
        self.times.append(stamp_ns)
        self.values.extend(values)

    def usable(self) -> np.ndarray:
        """(N,) whether a pose is finite and has a rotation."""
        values = np.frombuffer(self.values, np.float64).reshape(-1, 7)
        return np.isfinite(values).all(1) & has_rotation(values[:, 3:])

    def poses(self, rows: np.ndarray | None = None) -> Poses:
        """The usable ones, of all or of `rows`."""
        rows = np.arange(len(self.times)) if rows is None else rows
        rows = rows[self.usable()[rows]]
        values = np.frombuffer(self.values, np.float64).reshape(-1, 7)[rows]
        return Poses(np.frombuffer(self.times, np.int64)[rows], values[:, :3], values[:, 3:])


@dataclass
class FrameTree:
    """Transforms of a recording: child -> its poses in its parent."""

    edges: dict[str, PoseLog] = field(default_factory=dict)

    def add(self, transforms: Iterable[Transform], log_ns: int | None = None) -> None:
        """Takes the edges of a message; another parent of a known child is ignored.

        Args:
            transforms: the edges.
            log_ns: time that holds instead of theirs.
        """
        for each in transforms:
            edge = self.edges.setdefault(each.child, PoseLog(each.parent))
            if edge.parent == each.parent:
                edge.add(each, each.stamp_ns if log_ns is None else log_ns)

    @property
    def frames(self) -> list[str]:
        """Names of all frames."""
        return sorted({*self.edges, *(edge.parent for edge in self.edges.values())})

    def chain(self, frame: str) -> list[str]:
        """The frame and its ancestors up to the root."""
        result = [frame]
        while result[-1] in self.edges and self.edges[result[-1]].parent not in result:
            result.append(self.edges[result[-1]].parent)
        return result

    def fixed(self, target: str, source: str, where: str) -> tuple[np.ndarray, list[str]]:
        """T_target_source of two frames of the vehicle by the first pose of every edge, and the edges that move.

        Raises: Error source_bad_calibration where no chain of usable transforms joins them.
        """
        up, down = self.chain(source), self.chain(target)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            known = f"TF has {', '.join(self.frames)}" if self.frames else "the recording has no TF"
            fix = f"{known}; write the mounting into the topic map (T_ego_camera, T_ego_radar), or give a rig"
            what = f"no transforms lead from the frame {source!r} to {target!r}"
            raise Error(Code.source_bad_calibration, what, where, fix)
        moving: list[str] = []

        def along(frames: list[str]) -> np.ndarray:
            T = np.eye(4)
            for frame in frames[: frames.index(common)]:
                poses = self.edges[frame].poses()
                if not len(poses):
                    what = f"the transform of {frame!r} in {self.edges[frame].parent!r} has no rotation"
                    fix = "publish a quaternion of length 1, or write the mounting into the topic map"
                    raise Error(Code.source_bad_calibration, what, where, fix)
                if poses.moves():
                    moving.append(frame)
                T = poses.first() @ T
            return T

        return inverse(along(down)) @ along(up), moving

    def world(self, ego: str, world: str = "") -> Chain | None:
        """Poses of the vehicle in `world`, or in the nearest ancestor in which it moves; None where it does not."""
        frames = self.chain(ego)
        if world and world not in frames:
            return None
        last = frames.index(world) if world else len(frames) - 1
        edges = [self.edges[frame].poses() for frame in frames[:last]]
        moving = [i for i, poses in enumerate(edges) if poses.moves()]
        if not moving or not all(map(len, edges)):
            return None
        return Chain(edges if world else edges[: moving[0] + 1])


class Chain:
    """Poses along several edges, the child's first."""

    def __init__(self, edges: Sequence[Poses]):
        self.edges = [(poses, poses.moves()) for poses in edges]

    def at(self, time_ns: int) -> np.ndarray | None:
        """(4, 4) pose at a time; None where one edge has none."""
        T = np.eye(4)
        for poses, moves in self.edges:
            step = poses.at(time_ns) if moves else poses.first()
            if step is None:
                return None
            T = step @ T
        return T


class Odometry:
    """Poses and twist of the vehicle by odometry messages.

    Args:
        poses: of the messages' child frame.
        times: (N,) int64 ns of the twists, increasing.
        twists: (N, 6) m/s and rad/s in the child frame; NaN where unknown.
        T_child_ego: (4, 4) the vehicle's frame in the child frame.
    """

    def __init__(self, poses: Poses, times: np.ndarray, twists: np.ndarray, T_child_ego: np.ndarray):
        self.poses, self.times, self.twists, self._T = poses, times, twists, T_child_ego

    def at(self, time_ns: int) -> np.ndarray | None:
        """(4, 4) T_world_ego at a time; None in a gap and beyond the ends."""
        pose = self.poses.at(time_ns)
        return None if pose is None else pose @ self._T

    def twist(self, time_ns: int) -> np.ndarray | None:
        """(3,) vx, vy m/s and yaw rate rad/s in the ego frame at a time."""
        bracket = bracket_of(self.times, time_ns)
        if bracket is None:
            return None
        i, share = bracket
        values = self.twists[i] if share == 0 else (1 - share) * self.twists[i] + share * self.twists[i + 1]
        if not np.isfinite(values).all():
            return None
        linear, angular = values[:3], values[3:]
        R = self._T[:3, :3].T  # ego from child
        velocity, spin = R @ (linear + np.cross(angular, self._T[:3, 3])), R @ angular
        return np.array([velocity[0], velocity[1], spin[2]])
