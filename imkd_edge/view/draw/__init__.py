"""The overview picture: camera images with projected boxes beside a bird's-eye view. Importing it loads OpenCV."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from imkd_edge.bundle.files import write_atomically
from imkd_edge.errors import Code, Error
from imkd_edge.result import Detection, Result
from imkd_edge.sources.base import Sample
from imkd_edge.spec import ModelSpec
from imkd_edge.view.draw import bev, maps, panel
from imkd_edge.view.draw.camera import Shape, draw_camera
from imkd_edge.view.draw.canvas import THEMES, Canvas, Theme, class_color, cv2
from imkd_edge.view.draw.layout import camera_rectangles

MARGIN, GAP, TITLE = 16, 6, 46  # px


def overview(
    sample: Sample, result: Result | None, spec: ModelSpec, bundle: str = "", theme: str = "dark"
) -> np.ndarray:
    """One picture of a frame's sensor data, ground truth and detections.

    Args:
        sample: the frame to show; its ground truth, if present, is dashed.
        result: the detections; None shows the sample alone. Gate maps (`Detector(debug=True)`) and segmentation are
            drawn below.
        spec: defines the extent of the bird's-eye view and the class names.
        bundle: name for the title line.
        theme: "dark" or "light".

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        Error: spec_bad_value for another theme.
    """
    if theme not in THEMES:
        raise Error(Code.spec_bad_value, f"there is no theme {theme!r}", "theme", "choose dark or light")
    scene = _Scene(sample, result, spec, bundle, THEMES[theme])
    cameras = sample.rig.cameras
    wide = len(cameras) == 1 and cameras[0].width > 2 * cameras[0].height
    return scene.draw_wide() if wide else scene.draw_grid()


def write_png(path: Path, picture: np.ndarray, compression: int | None = None) -> None:
    """Writes a PNG file completely or not at all.

    Args:
        path: of the file.
        picture: (H, W, 3) uint8 RGB.
        compression: of zlib, 0 to 9; None: run lengths alone, four times as fast as 6 and for drawings no larger.

    Raises:
        Error: write_failed, of the disk or where OpenCV cannot encode the picture.
    """
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    level = [] if compression is None else [cv2.IMWRITE_PNG_COMPRESSION, compression]
    is_encoded, data = cv2.imencode(".png", bgr, level)
    if not is_encoded:
        raise Error(Code.write_failed, "the picture could not be encoded as PNG", str(path), "check the free memory")
    write_atomically(path, data.tobytes())


class _Scene:
    """The content of one overview and its two layouts."""

    def __init__(self, sample: Sample, result: Result | None, spec: ModelSpec, bundle: str, theme: Theme):
        self.sample, self.result, self.spec, self.bundle, self.theme = sample, result, spec, bundle, theme
        self.classes = [entry.name for entry in spec.head.classes]
        self.truth = [] if sample.truth is None else [np.asarray(box) for box in sample.truth.boxes]
        occlusion = np.zeros(0) if sample.truth is None else sample.truth.occlusion
        self.visible = [box for box, level in zip(self.truth, occlusion) if level < 3]
        detections = [] if result is None else result.detections
        tracks = {} if result is None else result.track_of
        for index, track in tracks.items():
            detections[index] = replace(detections[index], velocity=track.velocity)
        ids = [f"#{tracks[index].id} " if index in tracks else "" for index in range(len(detections))]
        self.shapes = [self._shape(detection, id) for detection, id in zip(detections, ids, strict=True)]
        self.rows = [
            (d.label, self._color(d.label), d.score, float(np.hypot(*d.center[:2])), float(np.hypot(*d.velocity)))
            for d in detections
        ]
        # NaN: a velocity that is no output of the model
        self.legend = {"has_truth": bool(self.truth), "has_velocity": not any(np.isnan(row[4]) for row in self.rows)}
        motion = sample.motion()
        self.cameras = motion.exposure_rig(sample.rig).cameras
        self.returns = bev.radar_returns(sample, motion)
        self.colors = bev.return_colors(self.returns, theme)
        self.maps = maps.maps_of(result)

    def _color(self, label: str) -> tuple[int, int, int]:
        return class_color(label, self.classes.index(label) if label in self.classes else 0)

    def _shape(self, detection: Detection, id: str) -> Shape:
        box = np.array([*detection.center, *detection.size, detection.yaw, *detection.velocity], np.float64)
        return box, self._color(detection.label), f"{id}{detection.label} {detection.score:.2f}"

    def _extent(self) -> bev.Extent:
        grid = self.spec.grid
        return bev.Extent(min(grid.x_min, -4.0), grid.x_max, grid.y_min, grid.y_max)

    def draw_wide(self) -> np.ndarray:
        """A wide image; below it the bird's-eye view with forward to the right, and a column of figures."""
        # 1. sizes, px
        extent, width = self._extent(), 1400
        inner = width - 2 * MARGIN
        camera = self.sample.rig.cameras[0]
        image_height = round(inner * camera.height / camera.width)
        bev_width = inner - 330 - GAP
        bev_height = round(bev_width * (extent.y_max - extent.y_min) / (extent.x_max - extent.x_min))
        bev_height = min(max(bev_height, 520), 760)
        strip = self._strip(inner, bev_width, True)
        # 2. the canvas and what is on it
        canvas = Canvas(width, TITLE + image_height + GAP + bev_height + strip + MARGIN, self.theme.background)
        self._draw_title(canvas)
        self._draw_camera(canvas.window(MARGIN, TITLE, inner, image_height), 0)
        top = TITLE + image_height + GAP
        window = canvas.window(MARGIN, top, bev_width, bev_height)
        bev.draw_bev(window, extent, True, self.returns, self.truth, self.shapes, self.theme)
        self._draw_column(canvas.window(MARGIN + bev_width + GAP, top, 330, bev_height))
        self._draw_maps(canvas, top + bev_height, strip, bev_width, True)
        return canvas.picture()

    def draw_grid(self) -> np.ndarray:
        """Images in rows at the left with figures below; the bird's-eye view with forward up at the right."""
        # 1. sizes, px
        left = 1180
        rectangles, images = camera_rectangles(list(self.cameras), left, 600, GAP)
        facts = max(252, 660 - images)
        extent = self._extent()
        view = images + facts
        bev_width = min(round(view * (extent.y_max - extent.y_min) / (extent.x_max - extent.x_min)), 2 * view)
        strip = self._strip(left + GAP + bev_width, bev_width, False)
        # 2. the canvas and what is on it
        canvas = Canvas(2 * MARGIN + left + GAP + bev_width, TITLE + view + strip + MARGIN, self.theme.background)
        self._draw_title(canvas)
        for index, part in rectangles.items():
            self._draw_camera(canvas.window(MARGIN + part.x, TITLE + part.y, part.width, part.height), index)
        self._draw_row(canvas.window(MARGIN, TITLE + images, left, facts))
        window = canvas.window(MARGIN + left + GAP, TITLE, bev_width, view)
        bev.draw_bev(window, extent, False, self.returns, self.truth, self.shapes, self.theme)
        self._draw_maps(canvas, TITLE + view, strip, bev_width, False)
        return canvas.picture()

    def _strip(self, width: int, bev_width: int, forward_right: bool) -> int:
        """Height of the row of maps with the gap above it, px; 0 without maps."""
        if not self.maps:
            return 0
        return GAP + maps.strip_height(maps.map_width(width, len(self.maps), bev_width), self._extent(), forward_right)

    def _draw_maps(self, canvas: Canvas, top: int, strip: int, bev_width: int, forward_right: bool) -> None:
        if self.maps:
            window = canvas.window(MARGIN, top + GAP, canvas.width - 2 * MARGIN, strip - GAP)
            grid, extent = self.spec.grid, self._extent()
            maps.draw_maps(window, self.maps, bev_width, grid, extent, forward_right, self.shapes, self.theme)

    def _draw_title(self, canvas: Canvas) -> None:
        x = MARGIN + canvas.text(MARGIN, 30, "imkd-edge", self.theme.text, 18, bold=True) + 18
        parts = [f"frame {self.sample.name}"]
        if self.bundle:
            parts.append(f"bundle {self.bundle}")
        if self.result is not None:
            parts.append(f"{len(self.result.detections)} detections")
            if self.result.tracks is not None:
                parts.append(f"{len(self.result.confirmed_tracks)} tracks")
            parts += [f"{self.result.total_us / 1000:.1f} ms"] if self.result.total_us else []
            parts.append(f"health: {self.result.health.mode}")
        canvas.text(x, 30, "   ·   ".join(parts), self.theme.muted, 14)

    def _draw_camera(self, canvas: Canvas, index: int) -> None:
        camera = self.cameras[index]
        image, radar = self.sample.frames.get(camera.name), (self.returns.points, self.colors)
        draw_camera(canvas, camera, image, radar, self.visible, self.shapes, self.theme)

    def _draw_column(self, canvas: Canvas) -> None:
        canvas.box(0, 0, canvas.width, canvas.height, self.theme.panel)
        y = 6.0
        if self.result is not None:
            fixed = 348 if self.result.health.mode == "full" else 398
            limit = max(3, int((canvas.height - fixed) / panel.ROW))
            y = panel.draw_detections(canvas, y, self.rows, len(self.rows), self.theme, limit)
        y = panel.draw_legend(canvas, y, self.classes, self.returns, self.theme, **self.legend)
        if self.result is not None:
            y = panel.draw_timing(canvas, y, self.result.timings_us, self.result.total_us, self.theme)
            panel.draw_sensors(canvas, y, self.result.health.mode, self.result.health.sensors, self.theme)

    def _draw_row(self, canvas: Canvas) -> None:
        canvas.box(0, 0, canvas.width, canvas.height, self.theme.panel)
        third = canvas.width // 3
        left, middle, right = (canvas.window(i * third, 0, third, canvas.height) for i in range(3))
        if self.result is not None:
            limit = int((canvas.height - 75) / panel.ROW)
            panel.draw_detections(left, 6, self.rows, len(self.rows), self.theme, limit)
            y = panel.draw_timing(right, 6, self.result.timings_us, self.result.total_us, self.theme)
            panel.draw_sensors(right, y, self.result.health.mode, self.result.health.sensors, self.theme)
        panel.draw_legend(middle, 6, self.classes, self.returns, self.theme, **self.legend)
