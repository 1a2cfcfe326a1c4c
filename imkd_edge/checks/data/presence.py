"""What the frames have: sensors of the rig, and poses."""

from __future__ import annotations

from collections.abc import Sequence

from imkd_edge.checks.data.moments import Moments
from imkd_edge.checks.data.report import Findings, listed, warning
from imkd_edge.errors import Code
from imkd_edge.rig import SensorRig
from imkd_edge.sources.folder.format import LIDAR


def judge(moments: Moments, rigs: Sequence[SensorRig]) -> Findings:
    """Sensors without a reading in any frame, and what only a part of the frames has.

    Args:
        moments: the frames that were looked at.
        rigs: of the frames; a sensor that not every rig has may be absent.
    """
    if not moments.names:
        return
    for name in _common_sensors(rigs):
        if name not in moments.rows:
            what, fix = "it is in the rig, and in no frame", "leave it out of the rig, or add its files to the frames"
            yield warning(Code.source_bad_calibration, "sensors", what, name, fix)
    for name in (*_common_sensors(rigs), LIDAR):
        fix = "fine where it was off; else copy its missing files, or look at its times in the recording"
        yield from _judge_part(moments, name, moments.rows.get(name, []), fix)
    if rigs and not any(len(rig.radars) for rig in rigs):
        what, fix = "no rig has a radar", "name the radars' topics in a recording's topic map; write them into the rig"
        yield warning(Code.source_bad_calibration, "sensors", what, "radars", f"{fix}; fine for cameras alone")
    posed = [row for row, ego in enumerate(moments.ego) if ego is not None]
    fix = "write the pose of every frame: without it old sweeps stay where they were measured, off the images"
    yield from _judge_part(moments, "pose", posed, fix)


def _common_sensors(rigs: Sequence[SensorRig]) -> list[str]:
    """Cameras and radars that every rig has, in the order of the first."""
    names = [[sensor.name for sensor in (*rig.cameras, *rig.radars)] for rig in rigs]
    return [name for name in names[0] if all(name in other for other in names)] if names else []


def _judge_part(moments: Moments, kind: str, rows: Sequence[int], fix: str) -> Findings:
    """Frames without what others have."""
    having, total = set(rows), len(moments.names)
    if not 0 < len(having) < total:
        return
    what = f"{total - len(having)} of {total} frames are without {kind}"
    where = "frame " + listed(moments.names[row] for row in range(total) if row not in having)
    yield warning(Code.source_missing_key, "absent", what, where, fix)
