"""Results as an MCAP file, for Foxglove and ROS 2 tools, with or without the data of the sensors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from imkd_edge.errors import Code, Error
from imkd_edge.frames import RadarSweep
from imkd_edge.result import Result
from imkd_edge.rig import SensorRig
from imkd_edge.run.sink import Sink
from imkd_edge.sources.base import Sample

try:
    import foxglove

    from imkd_edge.run import ros, scene
except ImportError as error:  # this module is imported only to write .mcap
    what, fix = f"this needs {error.name}, which is not installed", 'pip install "imkd-edge[recordings]"'
    raise Error(Code.missing_extra, what, ".mcap", fix) from error

BOXES, DETECTIONS, DIAGNOSTICS, TF, ODOMETRY = "/boxes", "/detections", "/diagnostics", "/tf", "/odom"
TRACK_BOXES, TRACKS = "/track_boxes", "/tracks"  # as /boxes and /detections, with ids
_NOT_IN_TOPICS = re.compile(r"[^A-Za-z0-9_]+")


class Recorder(Sink):
    """Boxes and tracks as foxglove.SceneUpdate and vision_msgs/Detection3DArray, states as diagnostics, the pose as TF.

    Args:
        path: of the .mcap.
        sensors: also write images, calibrations, points and odometry: `open_source` reads the file again.
    """

    def __init__(self, path: Path, sensors: bool = False) -> None:
        self._sensors = sensors
        self._ros = ros.RosMessages(scene.EGO)
        self._context = foxglove.Context()
        self._channels: dict[str, Any] = {}
        self._rig: SensorRig | None = None
        self._newest: dict[str, int] = {}  # time of each sensor's newest reading, ns: frames repeat readings
        self._scene = ""
        self._writer = foxglove.open_mcap(path, allow_overwrite=True, context=self._context)

    def write(self, sample: Sample, result: Result) -> None:
        if sample.scene != self._scene:
            self._scene = sample.scene
            self._newest.clear()
        time = result.timestamp_ns
        if sample.ego is not None and sample.ego.T_world_ego is not None:
            self._log(TF, scene.transform(time, scene.WORLD, scene.EGO, sample.ego.T_world_ego), time)
        if self._sensors:
            self._write_sensors(sample)
        self._log(BOXES, scene.boxes(result), time)
        self._log_ros(DETECTIONS, ros.DETECTIONS, self._ros.detections(result), time)
        if result.tracks is not None:
            self._log(TRACK_BOXES, scene.tracks(result), time)
            self._log_ros(TRACKS, ros.DETECTIONS, self._ros.tracks(result), time)
        self._log_ros(DIAGNOSTICS, ros.DIAGNOSTICS, self._ros.diagnostics(result), time)

    def close(self) -> None:
        self._writer.close()

    # ---- sensors ----
    def _write_sensors(self, sample: Sample) -> None:
        if sample.rig != self._rig:
            self._write_rig(sample.rig, sample.timestamp_ns)
        if sample.ego is not None and sample.ego.T_world_ego is not None:
            self._log(ODOMETRY, scene.odometry(sample.timestamp_ns, sample.ego), sample.timestamp_ns)
        for name, pixels in sample.frames.items():
            time = sample.camera_timestamps_ns.get(name, sample.timestamp_ns)
            if self._is_new(name, time):
                self._log(f"/{_topic(name)}/image_compressed", scene.image(time, name, pixels), time)
        for sweep in sorted(sample.radar, key=lambda sweep: _time(sweep, sample)):
            time = _time(sweep, sample)
            if self._is_new(sweep.radar, time):
                radar = sample.rig.radars[sample.rig.radar_index(sweep.radar)]
                self._log(f"/{_topic(sweep.radar)}/points", scene.points(sweep, time, radar), time)

    def _write_rig(self, rig: SensorRig, time: int) -> None:
        """Mountings and calibrations, again wherever they change."""
        self._rig = rig
        for camera in rig.cameras:
            self._log(TF, scene.transform(time, scene.EGO, camera.name, camera.T_ego_camera), time)
            message = scene.calibration(time, camera.name, camera)
            self._log(f"/{_topic(camera.name)}/camera_info", message, time)
        for radar in rig.radars:
            self._log(TF, scene.transform(time, scene.EGO, radar.name, radar.T_ego_radar), time)

    def _is_new(self, sensor: str, time: int) -> bool:
        if time <= self._newest.get(sensor, -1):
            return False
        self._newest[sensor] = time
        return True

    # ---- channels ----
    def _log(self, topic: str, message: Any, time: int) -> None:
        if topic not in self._channels:
            kind = getattr(foxglove.channels, f"{type(message).__name__}Channel")
            self._channels[topic] = kind(topic, context=self._context)
        self._channels[topic].log(message, log_time=time)

    def _log_ros(self, topic: str, kind: str, message: bytes, time: int) -> None:
        if topic not in self._channels:
            schema = foxglove.Schema(name=kind, encoding="ros2msg", data=self._ros.definition(kind))
            self._channels[topic] = foxglove.Channel(
                topic, schema=schema, message_encoding="cdr", context=self._context
            )
        self._channels[topic].log(message, log_time=time)


def _topic(sensor: str) -> str:
    """A sensor's name as a part of a topic."""
    return _NOT_IN_TOPICS.sub("_", sensor)


def _time(sweep: RadarSweep, sample: Sample) -> int:
    return sample.timestamp_ns if sweep.timestamp_ns is None else sweep.timestamp_ns
