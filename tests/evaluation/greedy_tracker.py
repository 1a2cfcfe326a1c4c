"""CenterPoint's tracker (Yin et al., Center-based 3D Object Detection and Tracking, CVPR 2021, section 4.3), written
from its description, as a reference for ours."""

from __future__ import annotations

import numpy as np

from imkd_edge.tracking import Track

# m per half a second; those of the authors' configuration for nuScenes
GATES = {"car": 4.0, "truck": 4.0, "bus": 5.5, "trailer": 3.0, "pedestrian": 1.0, "motorcycle": 13.0, "bicycle": 3.0}
MAX_AGE = 3  # frames


class GreedyTracker:
    """Detections, best first, are moved back by their velocity and take the nearest free track of their class."""

    def __init__(self, classes: tuple[str, ...]):
        self.classes, self.next_id, self.time = classes, 1, None
        self.tracks: list[dict] = []

    def update_boxes(self, boxes, scores, labels, timestamp_ns: int, ego) -> list[Track]:
        dt = 0.5 if self.time is None else 1e-9 * (timestamp_ns - self.time)
        if not 0 < dt <= 2:
            dt, self.tracks = 0.5, []
        self.time = timestamp_ns
        T = ego.T_world_ego
        centres = boxes[:, :3] @ T[:3, :3].T + T[:3, 3]
        velocities = np.nan_to_num(boxes[:, 7:9]) @ T[:2, :2].T

        current, taken = [], set()
        for i in np.argsort(-scores, kind="stable"):
            label = self.classes[labels[i]]
            back = centres[i, :2] - velocities[i] * dt
            gate = GATES.get(label, 4.0) * dt / 0.5
            free = [k for k, track in enumerate(self.tracks) if k not in taken and track["label"] == label]
            distances = [float(np.hypot(*(self.tracks[k]["xy"] - back))) for k in free]
            if distances and min(distances) < gate:
                nearest = free[int(np.argmin(distances))]
                taken.add(nearest)
                identity = self.tracks[nearest]["id"]
            else:
                identity, self.next_id = self.next_id, self.next_id + 1
            current.append({"id": identity, "label": label, "xy": centres[i, :2], "v": velocities[i], "age": 1, "i": i})
        published = [
            Track(
                t["label"], float(scores[i := t["i"]]), boxes[i, :3], boxes[i, 3:6], float(boxes[i, 6]), boxes[i, 7:9],
                t["id"], "confirmed", True, 0.0, 0.0, 0.0, 1, int(i),
            )
            for t in current
        ]  # fmt: skip
        for k, track in enumerate(self.tracks):
            if k not in taken and track["age"] < MAX_AGE:
                current.append({**track, "xy": track["xy"] + track["v"] * dt, "age": track["age"] + 1})
        self.tracks = current
        return published
