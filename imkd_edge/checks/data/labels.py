"""Labels: counts, sizes and speeds, and what cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imkd_edge.checks.data.moments import Moments
from imkd_edge.checks.data.report import Findings, error, listed, warning
from imkd_edge.errors import Code
from imkd_edge.sources.plane import Plane, heights_above

SIDES = ("length", "width", "height")
MAX_SIDE, MIN_SIDE = 60.0, 0.02  # m
MIN_OBJECTS = 10  # of a class, for its statistics
# A side is an outlier beyond this factor of the class's median and this many robust standard deviations of its
# logarithm, whichever is more: a class of cars and buses has a wide spread of its own.
FACTOR, DEVIATIONS = 3.0, 6.0
MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
MAX_SPEED = 70.0  # m/s
MOVING, MIN_MOVING = 2.0, 20  # m/s, and objects that move
MAX_HEADING_ERROR = 45.0  # degrees between velocity and yaw, median
FAR = 300.0  # m
# Vehicles are longer than wide; persons, cones and barriers are not: a class is judged where both sides are usually
# more than BROAD, and a swap is where that share of its objects is so many times wider than long.
BROAD, SWAPPED_SHARE, WIDER = 1.2, 0.9, 1.3  # m
MAX_BOTTOM = 0.5  # m of a class-wide median of the boxes' lower sides from the ground
DRIVING = 5.0  # m/s of the ego, to tell velocities over ground from relative ones
STATIC = 1.0  # m/s


def statistics(moments: Moments) -> dict[str, dict[str, Any]]:
    """For each class its objects, median size, distance and speed."""
    boxes, labels = moments.boxes, np.array(moments.labels, object)
    result = {}
    for label in sorted(set(moments.labels)):
        rows = boxes[labels == label]
        distance, speed = np.hypot(rows[:, 0], rows[:, 1]), np.hypot(rows[:, 7], rows[:, 8])
        known = np.isfinite(speed)
        result[label] = {
            "objects": len(rows),
            "size": [round(float(value), 2) for value in np.median(rows[:, 3:6], 0)],
            "distance_p99": round(float(np.quantile(distance, 0.99)), 1),
            "velocity": int(known.sum()),
            "speed_p99": round(float(np.quantile(speed[known], 0.99)), 1) if known.any() else None,
        }
    return result


def judge(moments: Moments, classes: Sequence[str] = ()) -> Findings:
    """What is wrong with sizes, distances, speeds and headings; classes: that dataset.json names."""
    boxes, labels = moments.boxes, np.array(moments.labels, object)
    frames = np.array(moments.frame_of, np.int64)
    unused = [name for name in classes if name not in set(moments.labels)]
    if unused and any(moments.labelled):
        what, fix = f"no object of the classes {listed(unused)}", "leave them out of dataset.json, or look for them"
        yield warning(Code.source_bad_label, "classes", what, "objects", fix)
    if not len(boxes):
        return

    def where(rows: np.ndarray) -> str:
        return "frame " + listed(dict.fromkeys(moments.names[frames[row]] for row in np.flatnonzero(rows)))

    for label in sorted(set(moments.labels)):
        yield from _judge_sizes(label, boxes, labels == label, where)
    far = np.hypot(boxes[:, 0], boxes[:, 1]) > FAR
    if far.any():
        what, fix = (
            f"{int(far.sum())} objects are more than {FAR:g} m away",
            "write centres in metres, in the ego frame",
        )
        yield error(Code.source_bad_label, "positions", what, where(far), fix)
    yield from _judge_speeds(moments, boxes, where)


def _judge_sizes(label: str, boxes: np.ndarray, rows: np.ndarray, where: Any) -> Findings:
    code, topic = Code.source_bad_label, "sizes"
    sizes = boxes[:, 3:6]
    impossible = rows & ((sizes > MAX_SIDE) | (sizes < MIN_SIDE)).any(1)
    if impossible.any():
        size = " x ".join(f"{value:g}" for value in sizes[np.flatnonzero(impossible)[0]])
        what = f"{int(impossible.sum())} {label} with a side below {MIN_SIDE:g} or above {MAX_SIDE:g} m, such as {size}"
        yield error(code, topic, what, where(impossible), "write length, width, height in metres")
    if rows.sum() < MIN_OBJECTS:
        return
    wider = float((sizes[rows, 1] > WIDER * sizes[rows, 0]).mean())
    if wider >= SWAPPED_SHARE and np.median(sizes[rows, :2].min(1)) > BROAD:
        what = f"{100 * wider:.0f} % of {int(rows.sum())} {label} are wider than long"
        yield warning(code, topic, what, "objects", "write length (along the yaw), width, height in this order")
    logs = np.log(np.maximum(sizes, 1e-6))
    middle = np.median(logs[rows], 0)
    spread = MAD * np.median(np.abs(logs[rows] - middle), 0)
    off = np.abs(logs - middle) > np.maximum(np.log(FACTOR), DEVIATIONS * spread)
    for side, name in enumerate(SIDES):
        outliers = rows & off[:, side] & ~impossible
        if outliers.any():
            value, usual = sizes[np.flatnonzero(outliers)[0], side], np.exp(middle[side])
            what = f"{int(outliers.sum())} {label} of unlike {name}, such as {value:.3g} m; its median is {usual:.3g} m"
            yield error(code, topic, what, where(outliers), "correct the size, or the class")


def _judge_speeds(moments: Moments, boxes: np.ndarray, where: Any) -> Findings:
    code, speed = Code.source_bad_label, np.hypot(boxes[:, 7], boxes[:, 8])
    fast = speed > MAX_SPEED
    if fast.any():
        what = f"{int(fast.sum())} objects faster than {MAX_SPEED:g} m/s, up to {np.nanmax(speed):.0f}"
        yield error(code, "speeds", what, where(fast), "write velocities over ground, in m/s")
    moving = (speed > MOVING) & ~fast
    if moving.sum() >= MIN_MOVING:
        turn = np.arctan2(boxes[moving, 8], boxes[moving, 7]) - boxes[moving, 6]
        angle = float(np.degrees(np.median(np.abs(np.arctan2(np.sin(turn), np.cos(turn))))))
        if angle > MAX_HEADING_ERROR:
            what = f"objects move {angle:.0f} degrees off their yaw, in the median of {int(moving.sum())}"
            fix = "yaw turns from x to y and points along the object's length: look for an offset or another sign"
            yield error(code, "headings", what, "objects", fix)
    yield from _judge_frame_of_velocities(moments, boxes)


def _judge_frame_of_velocities(moments: Moments, boxes: np.ndarray) -> Findings:
    """Velocities relative to the vehicle: what stands would move backwards as fast as it drives."""
    twists = moments.twists()
    for index, of_frame in enumerate(moments.ego):
        if of_frame is not None and of_frame.twist is not None:
            twists[index] = of_frame.twist
    ego = twists[np.array(moments.frame_of, np.int64)]
    known = (np.hypot(ego[:, 0], ego[:, 1]) > DRIVING) & np.isfinite(boxes[:, 7:9]).all(1)
    if known.sum() < MIN_MOVING:
        return
    # the velocity of a point that stands, in the turning ego frame, m/s
    x, y = boxes[known, 0], boxes[known, 1]
    relative = np.stack([-ego[known, 0] + ego[known, 2] * y, -ego[known, 1] - ego[known, 2] * x], 1)
    over_ground = float((np.hypot(*boxes[known, 7:9].T) < STATIC).mean())
    like_ego = float((np.hypot(*(boxes[known, 7:9] - relative).T) < STATIC).mean())
    straight = float((np.hypot(boxes[known, 7] + ego[known, 0], boxes[known, 8] + ego[known, 1]) < STATIC).mean())
    like_ego = max(like_ego, straight)
    if like_ego > 0.2 and like_ego > 3 * over_ground:
        what = f"{100 * like_ego:.0f} % of the objects have the velocity of what stands, seen from the vehicle"
        yield error(
            Code.source_bad_label,
            "speeds",
            what,
            "objects",
            "write velocities over ground, not relative to the vehicle",
        )


def judge_bottoms(moments: Moments, planes: Mapping[int, Plane] | Plane) -> Findings:
    """Whether boxes stand on the ground; planes: of the frames by index, or one of all."""
    boxes = moments.boxes
    if len(boxes) < MIN_OBJECTS:
        return
    bottoms = boxes[:, 2] - boxes[:, 5] / 2
    points = np.column_stack([boxes[:, :2], bottoms])
    if isinstance(planes, tuple):
        above = heights_above(planes, points)
    else:
        above = np.array([heights_above(planes[f], p[None])[0] for f, p in zip(moments.frame_of, points)])
    middle = float(np.median(above))
    if abs(middle) <= MAX_BOTTOM:
        return
    shares, height = above / boxes[:, 5], float(np.median(boxes[:, 5]))
    share = float(np.median(shares))
    by_height = np.median(np.abs(shares - share)) * height < np.median(np.abs(above - middle)) / 2
    side = "above" if middle > 0 else "below"
    what = f"the boxes' lower sides lie {abs(middle):.2f} m {side} the ground plane, in the median of {len(boxes)}"
    fix = "correct the ground_plane of the rig, or the labels"
    if abs(share + 0.5) < 0.1 and by_height:
        fix += "; they lie half a height too low: center is the middle of the box, not of its lower side"
    yield warning(Code.source_bad_label, "heights", what, "objects", fix)
