"""The recording in the viewer Rerun: a .rrd file, or a window while the loop runs."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.result import Result, Warning
from imkd_edge.rig import CameraCalibration
from imkd_edge.run.sink import Sink
from imkd_edge.sources.base import Sample
from imkd_edge.tracking import Track
from imkd_edge.view.draw import bev
from imkd_edge.view.draw.canvas import DARK, class_color, cv2
from imkd_edge.view.draw.geometry import EDGES, box_corners, is_visible, project_edges

try:
    import rerun as rr
    import rerun.blueprint as rrb
except ImportError as error:  # this module is imported only to show
    what, fix = "this needs rerun-sdk, which is not installed", 'pip install "imkd-edge[view]"'
    raise Error(Code.missing_extra, what, "--view, .rrd", fix) from error

JPEG_QUALITY = 80
TRAIL = 50  # positions of a track
EYE = np.array([[-25.0, 0, 25], [15, 0, 0]])  # m in the first ego frame: of the eye, and where it looks
TIMELINE = "sensor"  # time of the frames


class Viewer(Sink):
    """Cameras with boxes and returns, the scene in 3D, and the times and health of every frame.

    Args:
        path: of the .rrd; None opens a window.
    """

    def __init__(self, path: Path | None) -> None:
        self._stream = rr.RecordingStream("imkd_edge")
        self._origin: np.ndarray | None = None  # position of the first pose: float32 has no room for world coordinates
        self._cameras: list[CameraCalibration] | None = None
        self._trails: dict[int, list[np.ndarray]] = {}  # of each track, from the oldest position
        self._mode = ""
        self._warnings: tuple[Warning, ...] = ()
        if path is None:
            self._stream.spawn()
        else:
            self._stream.save(path)

    def write(self, sample: Sample, result: Result) -> None:
        self._stream.set_time(TIMELINE, timestamp=np.datetime64(sample.timestamp_ns, "ns"))
        if self._cameras is None:
            self._log_static(sample)
        motion = sample.motion()
        returns = bev.radar_returns(sample, motion)
        colors = bev.return_colors(returns, DARK)
        self._log_pose(sample)
        self._log("world/ego/radar", rr.Points3D(returns.points, colors=colors, radii=rr.Radius.ui_points(2.5)))
        boxes = np.asarray(result.boxes, np.float64)
        self._log_boxes("world/ego/detections", boxes, result)
        if result.tracks is not None:
            self._log_tracks(sample, result.confirmed_tracks)
        if sample.truth is not None:
            self._log_truth(np.asarray(sample.truth.boxes))
        box_colors = [class_color(name, label) for name, label in zip(result.names, result.labels, strict=True)]
        for camera in motion.exposure_rig(sample.rig).cameras:
            self._log_camera(sample, camera, boxes, box_colors)
        self._log_state(result)

    def close(self) -> None:
        self._stream.flush()
        self._stream.disconnect()

    def _log(self, entity: str, archetype: Any, static: bool = False) -> None:
        self._stream.log(entity, archetype, static=static)

    def _log_static(self, sample: Sample) -> None:
        """The axes and the layout of the window."""
        self._cameras = list(sample.rig.cameras)
        self._log("world", rr.ViewCoordinates.FLU, static=True)
        views = [rrb.Spatial2DView(origin=_entity(camera), name=camera.name) for camera in self._cameras]
        times = rrb.TimeSeriesView(origin="times", name="time in ms")
        states = rrb.TextLogView(origin="health", name="health")
        side = rrb.Vertical(rrb.Grid(*views), rrb.Horizontal(times, states), row_shares=[3, 1])
        pose = None if sample.ego is None else sample.ego.T_world_ego
        behind, ahead = EYE if pose is None else EYE @ np.asarray(pose)[:3, :3].T
        eye = rrb.EyeControls3D(position=behind, look_target=ahead, eye_up=(0, 0, 1), tracking_entity="world/ego")
        world = rrb.Spatial3DView(origin="world", name="scene", eye_controls=eye)
        self._stream.send_blueprint(
            rrb.Blueprint(rrb.Horizontal(world, side, column_shares=[1, 1]), collapse_panels=True)
        )

    def _log_pose(self, sample: Sample) -> None:
        pose = None if sample.ego is None else sample.ego.T_world_ego
        if pose is None:
            return
        if self._origin is None:
            self._origin = np.array(pose[:3, 3])
        transform = rr.Transform3D(translation=pose[:3, 3] - self._origin, mat3x3=pose[:3, :3])
        self._log("world/ego", transform)

    def _log_boxes(self, entity: str, boxes: np.ndarray, result: Result) -> None:
        colors = [class_color(name, label) for name, label in zip(result.names, result.labels, strict=True)]
        labels = [f"{name} {score:.2f}" for name, score in zip(result.names, result.scores, strict=True)]
        self._log(entity, _boxes(boxes, colors, labels, show_labels=result.tracks is None))
        moving = np.hypot(*np.nan_to_num(boxes[:, 7:9]).T) > bev.MOVING
        vectors = np.concatenate([boxes[moving, 7:9], np.zeros((moving.sum(), 1))], 1)
        arrows = rr.Arrows3D(origins=boxes[moving, :3], vectors=vectors, colors=np.array(colors or [(0, 0, 0)])[moving])
        self._log("world/ego/velocity", arrows if moving.any() else rr.Clear(recursive=False))

    def _log_tracks(self, sample: Sample, tracks: list[Track]) -> None:
        """The tracks' ids and velocities, and where they were; without a pose the trails are the ego's."""
        pose = None if sample.ego is None else sample.ego.T_world_ego
        T = np.eye(4) if pose is None or self._origin is None else np.array(pose)
        T[:3, 3] -= 0 if pose is None or self._origin is None else self._origin
        centers = np.array([track.center for track in tracks], np.float64).reshape(-1, 3)
        old, self._trails = self._trails, {}
        for track, position in zip(tracks, centers @ T[:3, :3].T + T[:3, 3], strict=True):
            self._trails[track.id] = [*old.get(track.id, []), position][-TRAIL:]
        labels = [f"#{track.id} {track.label}" for track in tracks]
        colors = [track_color(track.id) for track in tracks]
        radii = rr.Radius.ui_points(4)
        points = rr.Points3D(centers, labels=labels, colors=colors, radii=radii, show_labels=True)
        self._log("world/ego/tracks", points)
        vectors = np.array([[*np.nan_to_num(track.velocity), 0] for track in tracks]).reshape(-1, 3)
        self._log("world/ego/tracks/velocity", rr.Arrows3D(origins=centers, vectors=vectors, colors=colors))
        self._log("world/trails", rr.LineStrips3D(list(self._trails.values()), colors=colors))

    def _log_truth(self, boxes: np.ndarray) -> None:
        self._log("world/ego/truth", _boxes(boxes, [DARK.truth] * len(boxes), None))

    def _log_camera(
        self, sample: Sample, camera: CameraCalibration, boxes: np.ndarray, colors: list[tuple[int, int, int]]
    ) -> None:
        """The image, and the boxes through the camera's own lens."""
        entity, image = _entity(camera), sample.frames.get(camera.name)
        if image is None:
            self._log(entity, rr.Clear(recursive=True))
            return
        T = np.asarray(camera.T_ego_camera)
        self._log(entity, rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
        if camera.distortion != "fisheye":  # Rerun has no such lens: its image is shown flat
            K, resolution = np.asarray(camera.K), [camera.width, camera.height]
            self._log(entity, rr.Pinhole(image_from_camera=K, resolution=resolution, camera_xyz=rr.ViewCoordinates.RDF))
        _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        self._log(f"{entity}/image", rr.EncodedImage(contents=data.tobytes(), media_type="image/jpeg"))
        lines, line_colors = [], []
        for box, color in zip(boxes, colors, strict=True):
            paths = project_edges(camera, box_corners(box), EDGES)
            if is_visible(camera, paths):
                lines += paths
                line_colors += [color] * len(paths)
        self._log(f"{entity}/boxes", rr.LineStrips2D(lines, colors=line_colors))

    def _log_state(self, result: Result) -> None:
        """Times of the stages as curves; the mode and the warnings as lines of text where they change."""
        for stage, time_us in {**result.timings_us, "total": result.total_us}.items():
            self._log(f"times/{stage}", rr.Scalars(time_us / 1000))
        health = result.health
        failing = ", ".join(f"{name} {state}" for name, state in health.sensors.items() if state != "ok")
        mode = f"mode {health.mode}" + (f": {failing}" if failing else "")
        if mode != self._mode:
            level = rr.TextLogLevel.INFO if health.mode == "full" else rr.TextLogLevel.WARN
            self._log("health/mode", rr.TextLog(mode, level=level))
        for warning in health.warnings:
            if warning not in self._warnings:
                self._log("health/warnings", rr.TextLog(f"{warning.code} {warning.text}", level=rr.TextLogLevel.WARN))
        self._mode, self._warnings = mode, health.warnings
        self._log("health/sensors_ok", rr.Scalars(sum(state == "ok" for state in health.sensors.values())))


def _entity(camera: CameraCalibration) -> str:
    return f"world/ego/cameras/{rr.escape_entity_path_part(camera.name)}"


def track_color(id: int) -> tuple[int, int, int]:
    """A colour that differs from those of the ids nearby."""
    return tuple(round(255 * value) for value in colorsys.hsv_to_rgb(id * 0.618 % 1, 0.6, 1.0))  # type: ignore[return-value]


def _boxes(
    boxes: np.ndarray, colors: list[tuple[int, int, int]], labels: list[str] | None, show_labels: bool = True
) -> Any:
    """Boxes (N, 9) as Rerun's, turned about z; where tracks have labels, those of the boxes show under the mouse."""
    half, zero = boxes[:, 6] / 2, np.zeros(len(boxes))
    quaternions = np.stack([zero, zero, np.sin(half), np.cos(half)], 1)
    return rr.Boxes3D(
        centers=boxes[:, :3],
        half_sizes=boxes[:, 3:6] / 2,
        quaternions=quaternions,
        colors=colors,
        labels=labels,
        show_labels=show_labels,
    )
