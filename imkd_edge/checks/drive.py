"""What a golden drive is made of: six frames of a moving vehicle, one without a sensor, one without a pose."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from imkd_edge.errors import Code, Error
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample
from imkd_edge.sources.select import select, source_name
from imkd_edge.sources.synth import SynthSource
from imkd_edge.sources.timeline import moment
from imkd_edge.spec import ModelSpec

FRAMES = 6
WITHOUT_SENSOR, WITHOUT_POSE = 2, 3  # frames: without the rig's last camera; without any pose or motion
SEED = 5  # of the synthetic world: 11 m/s, and a turn of 6 to 8 degrees per second
SYNTH = "synth"


def golden_samples(golden: str, rig: SensorRig, spec: ModelSpec) -> list[Sample]:
    """The sensor data of a golden drive.

    Args:
        golden: "synth", the path of a rig's JSON file, or a recording. Only of a recording real frames go into the
            bundle: its licence must allow to pass them on.
        rig: of the synthetic world, unless `golden` is another one.
        spec: the frames are one interval of its history apart.

    Raises:
        Error: source_unknown_frame where a recording has no six such frames in one scene; those of the rig and source.
    """
    if os.path.isfile(golden) and golden.endswith(".json"):
        golden, rig = SYNTH, SensorRig.load(golden)
    return with_faults(synthetic_drive(rig, spec) if golden == SYNTH else recorded_drive(golden, spec))


def golden_source(golden: str) -> str:
    """What the manifest calls the drive's origin: no path of this machine."""
    return "synthetic world" if golden == SYNTH or golden.endswith(".json") else "recording"


def synthetic_drive(rig: SensorRig, spec: ModelSpec) -> list[Sample]:
    """The drive as a rig sees it in the synthetic world."""
    rate = min(1 / spec.history.interval, 30.0)
    source = SynthSource(seed=SEED, scenes=1, frames_per_scene=FRAMES, rig=rig, rate_hz=rate)
    return [source[name] for name in source.names]


def recorded_drive(data: str, spec: ModelSpec) -> list[Sample]:
    """The first frames of a scene of a recording that are one interval apart, or more where it has no others."""
    selection = select(data)
    names: list[str] = []
    scene, start = "", 0
    for name in selection.names:
        now_scene, now = moment(selection.source, name)
        if not names or now_scene != scene:
            names, scene, start = [name], now_scene, now
        elif now - start >= 1e9 * spec.history.interval * (len(names) - 0.25):
            names.append(name)
        if len(names) == FRAMES:
            return [selection.source[name] for name in names]
    what = f"no scene has {FRAMES} frames that are {spec.history.interval:g} s apart"
    fix = 'give a longer recording, or "synth" for the synthetic world'
    raise Error(Code.source_unknown_frame, what, source_name(data), fix)


def with_faults(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, one without the last camera of its rig and one without a pose."""
    result = list(samples)
    sample = result[WITHOUT_SENSOR]
    absent = sample.rig.cameras[-1].name
    images = {name: image for name, image in sample.frames.items() if name != absent}
    result[WITHOUT_SENSOR] = replace(sample, frames=images)
    sample = result[WITHOUT_POSE]
    radar = [replace(sweep, T_world_ego=None) for sweep in sample.radar]
    result[WITHOUT_POSE] = replace(sample, ego=None, radar=radar, camera_T_world_ego={})
    return result
