"""The other side of the node, in rclpy: publishes a scene step by step, and records what the node publishes.

peer.py FOLDER: reads image.npy, points.npy and steps.json, writes heard.json.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from radar_msgs.msg import RadarReturn, RadarScan
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, PointCloud2, PointField
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

IMAGE, POINTS, ODOMETRY = "/camera/front/image_raw", "/radar/front/points", "/odometry"
SCAN = "/radar/front/scan"  # the same returns as POINTS, polar
FIELDS = ("x", "y", "z", "rcs", "range_rate")


class Peer(Node):
    def __init__(self, folder: Path) -> None:
        super().__init__("peer")
        self.image, self.points = np.load(folder / "image.npy"), np.load(folder / "points.npy")
        self.polar = np.load(folder / "polar.npy")  # range, azimuth, elevation, intensity, velocity
        kinds = {IMAGE: Image, POINTS: PointCloud2, SCAN: RadarScan, ODOMETRY: Odometry}
        self.out = {topic: self.create_publisher(kind, topic, qos_profile_sensor_data) for topic, kind in kinds.items()}
        kinds_heard = ("sent", "detections", "tracks", "markers", "diagnostics")
        self.heard: dict[str, list] = {name: [] for name in kinds_heard}
        for name in ("detections", "tracks"):
            self.create_subscription(Detection3DArray, f"/imkd_detector/{name}", partial(self.hear_boxes, name), 10)
        self.create_subscription(MarkerArray, "/imkd_detector/markers", self.hear_markers, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self.hear_diagnostics, 10)

    def spin(self, seconds: float, until: str = "") -> bool:
        """Spins for a time, or until a list of what was heard grows."""
        count, end = len(self.heard.get(until, [])), time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.02)
            if until and len(self.heard[until]) > count:
                return True
        return False

    # ---- what the node hears ----
    def publish(self, step: dict) -> None:
        ns = time.time_ns() - int(step.get("age", 0) * 1e9)
        self.heard["sent"].append(ns)
        makers = {IMAGE: self.make_image, POINTS: self.make_points, SCAN: self.make_scan, ODOMETRY: self.make_odometry}
        for topic in step["topics"]:
            message = makers[topic](step)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(ns, 1_000_000_000)
            self.out[topic].publish(message)

    def make_image(self, step: dict) -> Image:
        height, width = self.image.shape[:2]
        noise = len(self.heard["sent"]) % 2  # a camera whose pixels repeat is frozen
        pixels = self.image.copy()
        pixels[0, 0] ^= noise
        encoding = step.get("encoding", "bgr8")
        data = np.ascontiguousarray(pixels[..., ::-1]).tobytes()
        return Image(height=height, width=width, encoding=encoding, step=3 * width, data=data)

    def make_points(self, step: dict) -> PointCloud2:
        fields = [PointField(name=name, offset=4 * i, datatype=7, count=1) for i, name in enumerate(FIELDS)]
        points = self.points + np.float32(1e-3) * (len(self.heard["sent"]) - 1)
        size = 4 * len(FIELDS)
        n = len(points)
        return PointCloud2(height=1, width=n, fields=fields, point_step=size, row_step=size * n, data=points.tobytes())

    def make_scan(self, step: dict) -> RadarScan:
        return RadarScan(
            returns=[
                RadarReturn(
                    range=float(r[0]),
                    azimuth=float(r[1]),
                    elevation=float(r[2]),
                    amplitude=float(r[3]),
                    doppler_velocity=float(r[4]),
                )
                for r in self.polar
            ]
        )

    def make_odometry(self, step: dict) -> Odometry:
        message = Odometry(child_frame_id=step.get("child", "base_link"))
        message.twist.twist.linear.x, message.twist.twist.angular.z = 5.0, 0.1
        return message

    # ---- what it says ----
    def hear_boxes(self, name: str, message: Detection3DArray) -> None:
        boxes = [
            {
                "label": d.results[0].hypothesis.class_id,
                "score": d.results[0].hypothesis.score,
                "center": [d.bbox.center.position.x, d.bbox.center.position.y, d.bbox.center.position.z],
                "size": [d.bbox.size.x, d.bbox.size.y, d.bbox.size.z],
                "yaw": 2 * float(np.arctan2(d.bbox.center.orientation.z, d.bbox.center.orientation.w)),
                "id": d.id,
            }
            for d in message.detections
        ]
        self.heard[name].append({"ns": ns_of(message), "frame": message.header.frame_id, "boxes": boxes})

    def hear_markers(self, message: MarkerArray) -> None:
        self.heard["markers"].append([[m.type, m.action, m.text] for m in message.markers])

    def hear_diagnostics(self, message: DiagnosticArray) -> None:
        self.heard["diagnostics"].append(
            {
                s.name: {
                    "level": int.from_bytes(s.level, "little"),
                    "message": s.message,
                    **{v.key: v.value for v in s.values},
                }
                for s in message.status
            }
        )


def ns_of(message: Detection3DArray) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def main() -> None:
    folder = Path(sys.argv[1])
    rclpy.init()
    peer = Peer(folder)
    deadline = time.monotonic() + 30
    steps = json.loads((folder / "steps.json").read_text())
    topics = {topic for step in steps for topic in step["topics"]}
    while not all(peer.out[topic].get_subscription_count() for topic in topics):
        assert time.monotonic() < deadline, "the node does not subscribe"
        peer.spin(0.1)
    for step in steps:
        for _ in range(step.get("times", 1)):
            if step["topics"]:
                peer.publish(step)
            if peer.spin(step["seconds"], step.get("until", "")):
                break
    (folder / "heard.json").write_text(json.dumps(peer.heard))


main()
