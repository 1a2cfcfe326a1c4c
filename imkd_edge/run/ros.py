"""Results as ROS 2 messages in CDR: vision_msgs/Detection3DArray and diagnostic_msgs/DiagnosticArray."""

from __future__ import annotations

from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from imkd_edge.result import Detection, Result

DETECTIONS, DIAGNOSTICS = "vision_msgs/msg/Detection3DArray", "diagnostic_msgs/msg/DiagnosticArray"
# vision_msgs 4 (github.com/ros-perception/vision_msgs, Humble and later): no store of the library has it
_VISION = {
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n",
    "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n",
    "Detection3D": "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox3D bbox\nstring id\n",
    "Detection3DArray": "std_msgs/Header header\nDetection3D[] detections\n",
}
# DiagnosticStatus
_OK, _WARN, _ERROR, _STALE = 0, 1, 2, 3
LEVELS = {
    "ok": _OK, "late": _WARN, "frozen": _WARN, "unusable": _WARN, "invalid": _ERROR, "missing": _ERROR,
    "lost": _ERROR, "stale": _STALE,
}  # fmt: skip
MODES = {"full": _OK, "blind": _ERROR}  # any other is a warning


class RosMessages:
    """Makes the messages of results.

    Args:
        frame: of TF, in which the boxes are.
    """

    def __init__(self, frame: str) -> None:
        self._frame = frame
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        for name, text in _VISION.items():
            self._store.register(get_types_from_msg(text, f"vision_msgs/msg/{name}"))

    def definition(self, kind: str) -> bytes:
        """The text of a message's type and of those in it, as a schema of the encoding ros2msg."""
        return self._store.generate_msgdef(kind, ros_version=2)[0].encode()

    def detections(self, result: Result) -> bytes:
        """A Detection3DArray: a hypothesis and a box for each detection; it has no room for velocities."""
        header = self._header(result.timestamp_ns)
        entries = [self._detection(header, detection) for detection in result.detections]
        return self._encode(DETECTIONS, header=header, detections=entries)

    def diagnostics(self, result: Result) -> bytes:
        """A DiagnosticArray: the detector's mode with its warnings, and the state of each sensor."""
        health = result.health
        values = {warning.code: warning.text for warning in health.warnings}
        values |= {"radar_points": str(health.radar_points), "ego_motion": health.ego_motion}
        values |= {"infer_ms": f"{result.total_us / 1000:.1f}"}
        states = [self._status("detector", MODES.get(health.mode, _WARN), health.mode, values)]
        states += [self._status(name, LEVELS.get(state, _ERROR), state, {}) for name, state in health.sensors.items()]
        return self._encode(DIAGNOSTICS, header=self._header(result.timestamp_ns), status=states)

    def _make(self, kind: str, **fields: Any) -> Any:
        return self._store.types[kind](**fields)

    def _encode(self, kind: str, **fields: Any) -> bytes:
        return bytes(self._store.serialize_cdr(self._make(kind, **fields), kind))

    def _header(self, time_ns: int) -> Any:
        stamp = self._make("builtin_interfaces/msg/Time", sec=time_ns // 10**9, nanosec=time_ns % 10**9)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=self._frame)

    def _detection(self, header: Any, detection: Detection) -> Any:
        x, y, z = map(float, detection.center)
        position = self._make("geometry_msgs/msg/Point", x=x, y=y, z=z)
        half = detection.yaw / 2
        turn = self._make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=float(np.sin(half)), w=float(np.cos(half)))
        pose = self._make("geometry_msgs/msg/Pose", position=position, orientation=turn)
        length, width, height = map(float, detection.size)
        size = self._make("geometry_msgs/msg/Vector3", x=length, y=width, z=height)
        hypothesis = self._make(
            "vision_msgs/msg/ObjectHypothesis", class_id=detection.label, score=float(detection.score)
        )
        covariance = self._make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36))
        guess = self._make("vision_msgs/msg/ObjectHypothesisWithPose", hypothesis=hypothesis, pose=covariance)
        box = self._make("vision_msgs/msg/BoundingBox3D", center=pose, size=size)
        return self._make("vision_msgs/msg/Detection3D", header=header, results=[guess], bbox=box, id="")

    def _status(self, name: str, level: int, text: str, values: dict[str, str]) -> Any:
        pairs = [self._make("diagnostic_msgs/msg/KeyValue", key=key, value=value) for key, value in values.items()]
        fields = {"level": level, "name": f"imkd_edge: {name}", "message": text, "hardware_id": name, "values": pairs}
        return self._make("diagnostic_msgs/msg/DiagnosticStatus", **fields)
