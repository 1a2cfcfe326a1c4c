"""Times of frames and sensors, and whether poses and twists agree."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from imkd_edge.checks.data.moments import Moments
from imkd_edge.checks.data.report import Findings, error, listed, quantiles, warning
from imkd_edge.errors import Code

LONG_GAP = 3.0  # usual intervals between two frames
OFFSET, LARGE_OFFSET = 0.1, 0.25  # s of a sensor's time from its frame's, in the median
JUMP = 0.1  # s, of a single offset from the sensor's median
MIN_FRAMES = 5
DRIVING = 2.0  # m/s
SPEED_RATIO = 1.3  # between the speeds of twist and poses
ALONG = 0.94  # cosine of 20 degrees: what a vehicle's motion has along its x axis, slip and mounting included
MAX_SHARE = 0.3  # of the frames that are otherwise
TURN_ERROR = 0.1  # rad/s, median difference of yaw rates
MAX_SPEED = 70.0  # m/s, of the vehicle


def intervals(moments: Mapping[str, tuple[str, int]]) -> list[tuple[str, float]]:
    """(frame, s since the frame before it in its scene) of names -> (scene, ns), in the order of the source."""
    items = list(moments.items())
    return [(name, (now - then) * 1e-9) for (_, (old, then)), (name, (new, now)) in pairwise(items) if old == new]


def statistics(moments: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Of the intervals between frames."""
    gaps = intervals(moments)
    values = [gap for _, gap in gaps]
    usual = float(np.median(values)) if values else 0.0
    long = [name for name, gap in gaps if gap > LONG_GAP * usual]
    return {"interval": quantiles(values), "gaps": len(long), "first_gap": long[0] if long else None}


def sensor_offsets(moments: Moments) -> dict[str, dict[str, Any]]:
    """For each sensor its kind, frames and offsets from the frames' times."""
    return {
        name: {"kind": moments.kinds[name], "frames": len(values), "offset": quantiles(values)}
        for name, values in moments.offsets.items()
    }


def judge(
    moments: Mapping[str, tuple[str, int]], sensors: Mapping[str, Any], columns: Moments, interval: float | None
) -> Findings:
    """What is wrong with times.

    Args:
        moments: name -> scene and ns, of every frame of the source where they are known.
        sensors: of `sensor_offsets`.
        columns: the frames that were looked at.
        interval: s between frames that the source states.
    """
    gaps, code = intervals(moments), Code.source_bad_time
    values = np.array([gap for _, gap in gaps])
    usual = float(np.median(values)) if len(values) else 0.0
    long = [(name, gap) for name, gap in gaps if gap > LONG_GAP * usual]
    if long:
        what = f"{len(long)} gaps of more than {LONG_GAP:g} usual intervals ({usual:.3g} s): {long[0][1]:.3g} s"
        fix = "give what follows a gap another scene: past frames are searched within a scene"
        yield warning(code, "time gaps", what, f"before frame {listed(name for name, _ in long)}", fix)
    if interval and usual and not 0.9 < usual / interval < 1.1:
        what = f"dataset.json says an interval of {interval:g} s, frames are {usual:.3g} s apart"
        yield warning(code, "interval", what, "frames", "correct the interval")
    for name, sensor in sensors.items():
        yield from _judge_offsets(name, sensor, np.array(columns.offsets[name]))


def _judge_offsets(name: str, sensor: Mapping[str, Any], offsets: np.ndarray) -> Findings:
    where, code = f"{sensor['kind']} {name}", Code.source_bad_time
    middle = float(np.median(offsets))
    if abs(middle) > OFFSET:
        grade = error if abs(middle) > LARGE_OFFSET else warning
        side = "after" if middle > 0 else "before"
        what = f"its time is {abs(middle):.3f} s {side} the frame's, in the median of {len(offsets)} frames"
        fix = "write the times of exposure and measurement on the frames' clock, and pair each frame with its nearest"
        yield grade(code, "time offset", what, where, fix)
    jumps = int((np.abs(offsets - middle) > JUMP).sum())
    if jumps and len(offsets) >= MIN_FRAMES:
        what = f"{jumps} of {len(offsets)} times are more than {JUMP:g} s off its usual offset of {middle:.3f} s"
        fix = "pair each frame with the reading nearest in time, or leave the reading out"
        yield warning(code, "time offset", what, where, fix)


def judge_ego(columns: Moments) -> Findings:
    """Whether poses are those of a vehicle that drives along its x axis, and twists are theirs."""
    by_pose, code, where = columns.twists(), Code.source_bad_value, "ego"
    speed = np.hypot(by_pose[:, 0], by_pose[:, 1])
    fast = [name for name, value in zip(columns.names, speed) if value > MAX_SPEED]
    if fast:
        what = f"poses jump: {np.nanmax(speed):.0f} m/s"
        fix = "write T_world_ego in metres, in one world frame for a scene"
        yield error(code, "ego motion", what, f"before frame {listed(fast)}", fix)
    driving = (speed > DRIVING) & (speed <= MAX_SPEED)
    if driving.sum() >= MIN_FRAMES:
        forward = by_pose[driving, 0] / speed[driving]  # cosine of the angle between motion and x axis
        sideways, backwards = float((np.abs(forward) < ALONG).mean()), float((forward < 0).mean())
        if sideways > MAX_SHARE or MAX_SHARE < backwards < 1 - MAX_SHARE:
            what = f"by its poses the vehicle moves sideways in {100 * sideways:.0f} % of the frames, backwards in "
            what += f"{100 * backwards:.0f} %"
            fix = "write T_world_ego (not its inverse) of an ego frame with x forward, y left, z up"
            yield error(code, "ego motion", what, where, fix)
            return  # twists would differ from them too
        if backwards >= 1 - MAX_SHARE:
            what = f"by its poses the vehicle drives backwards in {100 * backwards:.0f} % of the frames"
            fix = "let the ego frame's x axis point forward, and write T_world_ego, not its inverse"
            yield error(code, "ego motion", what, where, fix)
    yield from _judge_twists(columns, by_pose, driving)


def _judge_twists(columns: Moments, by_pose: np.ndarray, driving: np.ndarray) -> Findings:
    twists = np.full((len(columns.names), 3), np.nan)
    for index, ego in enumerate(columns.ego):
        if ego is not None and ego.twist is not None:
            twists[index] = ego.twist
    both = driving & np.isfinite(twists).all(1)
    if both.sum() < MIN_FRAMES:
        return
    code, where, topic = Code.source_bad_value, "ego.twist", "ego motion"
    ratio = float(np.median(twists[both, 0] / by_pose[both, 0]))
    if not 1 / SPEED_RATIO < ratio < SPEED_RATIO:
        unit = "; km/h are to be divided by 3.6" if 3 < ratio < 4.2 else ""
        what = f"the twist's vx is {ratio:.2f} times that of the poses, in the median of {int(both.sum())} frames"
        yield error(code, topic, what, where, f"write vx, vy in m/s, forward and left{unit}")
    turn = float(np.median(np.abs(twists[both, 2] - by_pose[both, 2])))
    reverse = float(np.median(np.abs(twists[both, 2] + by_pose[both, 2])))
    if turn > TURN_ERROR:
        sign = ", positive to the left: its sign is reversed" if reverse < turn / 3 else ", positive to the left"
        what = f"the twist's yaw rate is {turn:.2f} rad/s off that of the poses, in the median"
        yield error(code, topic, what, where, f"write rad/s{sign}")
