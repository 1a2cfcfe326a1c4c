"""The View-of-Delft metrics, by the official devkit's code (tudelft-iv/view-of-delft-dataset, vod/evaluation).

Every number is the devkit's: it reads the set's label files and result files that are written here. AP is at 11 recall
points, IoU above 0.5 for cars, 0.25 for pedestrians and cyclists, in the entire annotated area and in the driving
corridor (4 m to each side, up to 25 m ahead of the camera). Peculiarities of the devkit:

- Objects at most 40 px high in the image do not count, nor do detections of that height or outside the image.
- Detections beyond the 50 m up to which the set is labelled count as any other.
- It rotates each detection by 0.01 rad before it compares boxes, and compares them upright in the camera frame,
  although they stand upright in the LiDAR's: with a camera tilted by 6.5 degrees a metre too far ahead is also 0.11 m
  too high.
- A class without an object has AP 0; with 40 objects or fewer no detector reaches 100.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.evaluation.detections import Detections
from imkd_edge.rig import CameraCalibration, SensorRig
from imkd_edge.sources.vod import result_line
from imkd_edge.view.draw.geometry import EDGES, box_corners, is_visible, project_edges

CLASSES = {"car": "Car", "pedestrian": "Pedestrian", "cyclist": "Cyclist"}  # evaluated: ours -> the devkit's
_AREAS = {"entire_area": "entire_area", "roi": "driving_corridor"}  # the devkit's -> ours
_VALUES = {"3d": "ap", "bev": "bev_ap", "aos": "aos"}
_DEVKIT = 'pip install "imkd-edge[test]" && pip install --no-deps vod-tudelft==1.0.3'


def evaluate(
    labels: Path, names: Sequence[str], rigs: Sequence[SensorRig], detections: Sequence[Detections]
) -> dict[str, float]:
    """Average precision in percent, per class and area.

    Args:
        labels: folder of the set's label files, NAME.txt.
        names: frames to evaluate.
        rigs: one per frame, with its calibration.
        detections: one per frame: boxes (M, 9) in the ego frame, scores (M,), class names in lower case. Classes other
            than car, pedestrian and cyclist are ignored.
    Returns:
        mAP_entire_area, mAP_driving_corridor (means of the three classes in 3D), then for each class and area
        car_ap_AREA in 3D, car_bev_ap_AREA, and car_aos_AREA, the average orientation similarity.
    Raises:
        Error: missing_extra without the devkit; spec_bad_value for lists of different length.
    """
    evaluation = load_devkit()
    if not len(names) == len(rigs) == len(detections):
        what = f"{len(names)} names, {len(rigs)} rigs, {len(detections)} detections"
        raise Error(Code.spec_bad_value, what, "evaluate", "give one of each per frame")
    with tempfile.TemporaryDirectory() as folder:
        for name, rig, frame in zip(names, rigs, detections):
            lines = [line + "\n" for line in _result_lines(rig.cameras[0], *frame)]
            (Path(folder) / f"{name}.txt").write_text("".join(lines))
        with contextlib.redirect_stdout(io.StringIO()):  # the devkit prints its progress
            areas = evaluation(str(labels)).evaluate(folder)
    means: dict[str, float] = {}
    rest: dict[str, float] = {}
    for area, suffix in _AREAS.items():
        for label, name in CLASSES.items():
            values = areas[area]
            rest |= {f"{label}_{short}_{suffix}": float(values[f"{name}_{key}_all"]) for key, short in _VALUES.items()}
        means[f"mAP_{suffix}"] = float(np.mean([rest[f"{label}_ap_{suffix}"] for label in CLASSES]))
    return means | rest


def _result_lines(camera: CameraCalibration, boxes: np.ndarray, scores: np.ndarray, labels: Sequence[str]) -> list[str]:
    rows = zip(np.asarray(boxes, np.float64).reshape(-1, 9), scores, labels, strict=True)
    return [
        result_line(camera, CLASSES[label], box, _rectangle(camera, box), score)
        for box, score, label in rows
        if label in CLASSES
    ]


def _rectangle(camera: CameraCalibration, box: np.ndarray) -> list[float]:
    """Left, top, right, bottom px of a box, clipped to the image; zeros outside it."""
    paths = project_edges(camera, box_corners(box), EDGES)
    if not is_visible(camera, paths):
        return [0.0] * 4
    points = np.concatenate(paths)
    limit = np.array([camera.width - 1, camera.height - 1])
    return [*np.clip(points.min(0), 0, limit).tolist(), *np.clip(points.max(0), 0, limit).tolist()]


def load_devkit() -> Any:
    """The devkit's Evaluation; raises Error missing_extra.

    Its import loads its notebook plots too; an empty module stands in for k3d, which only they use.
    """
    stand_in = "k3d" not in sys.modules and find_spec("k3d") is None
    if stand_in:
        sys.modules["k3d"] = ModuleType("k3d")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numba warns of an argument without effect
            from vod.evaluation import Evaluation
    except ImportError as fault:
        what = f"the View-of-Delft metrics need vod-tudelft ({fault})"
        raise Error(Code.missing_extra, what, "evaluate", _DEVKIT) from None
    finally:
        if stand_in:
            del sys.modules["k3d"]
    return Evaluation
