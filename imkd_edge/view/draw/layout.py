"""Where the camera images lie in the overview: in the order in which the driver sees them, in their own proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imkd_edge.rig import CameraCalibration

MAX_COLUMNS = 4  # images in a row


@dataclass(frozen=True)
class Rectangle:
    """Part of a canvas, px."""

    x: int
    y: int
    width: int
    height: int


def camera_rows(cameras: Sequence[CameraCalibration]) -> list[list[int]]:
    """Indices of the cameras in rows from left to right: first those that look forward, then those that look back.

    In the rows of those that look back the vehicle's left is at the left too. A row of more than four is cut.
    """
    azimuth = np.array([np.arctan2(*np.asarray(camera.T_ego_camera)[[1, 0], 2]) for camera in cameras])
    # A camera that looks just sideways counts as one that looks forward.
    forward = np.abs(azimuth) <= np.pi / 2 + 0.1
    ahead = sorted(np.flatnonzero(forward), key=lambda index: -azimuth[index])
    back = sorted(np.flatnonzero(~forward), key=lambda index: azimuth[index] % (2 * np.pi))
    rows = []
    for row in (ahead, back):
        parts = -(-len(row) // MAX_COLUMNS)
        rows += [[int(index) for index in part] for part in np.array_split(row, parts)] if parts else []
    return rows


def camera_rectangles(
    cameras: Sequence[CameraCalibration], width: int, height: int, gap: int
) -> tuple[dict[int, Rectangle], int]:
    """Rectangles of the images by index of the camera, all equally high, and the height of all rows with their gaps.

    Args:
        cameras: at least one.
        width, height: of the canvas, px; what the rows leave of the width is at both their sides.
        gap: px between images and below each row.
    """
    rows = camera_rows(cameras)
    aspects = [[cameras[index].width / cameras[index].height for index in row] for row in rows]
    fits = [(width - gap * (len(row) - 1)) / sum(row) for row in aspects]
    row_height = int(min(*fits, height / len(rows) - gap))
    rectangles = {}
    for number, (row, shapes) in enumerate(zip(rows, aspects, strict=True)):
        widths = [round(row_height * aspect) for aspect in shapes]
        x = (width - sum(widths) - gap * (len(row) - 1)) // 2
        for index, image_width in zip(row, widths, strict=True):
            rectangles[index] = Rectangle(x, number * (row_height + gap), image_width, row_height)
            x += image_width + gap
    return rectangles, len(rows) * (row_height + gap)
