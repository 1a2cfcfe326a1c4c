"""A bundle written again: for another number of cameras, with another golden drive; its weights stay."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imkd_edge.bundle import PARTS, Bundle, check_target, write_bundle
from imkd_edge.bundle.cameras import with_cameras
from imkd_edge.bundle.golden import pack_drive, read_golden
from imkd_edge.checks.drive import golden_samples, golden_source
from imkd_edge.checks.observe import open_parts
from imkd_edge.checks.selftest import with_results
from imkd_edge.spec import ModelSpec


def export_with_cameras(
    bundle: str | os.PathLike[str] | Bundle, cameras: int | None, out: Path | str, golden: str | None = None
) -> dict[str, Any]:
    """Writes a bundle, float or INT8, for rigs with up to `cameras` cameras.

    The metrics are those of the old bundle.

    Args:
        bundle: a Bundle, the path of one, or the name of a shipped one.
        cameras: 1 to 64; None: as many as before.
        out: folder to make, NAME.imkd; it may be the old bundle.
        golden: of the golden drive, as in `golden_samples`; None: the old sensor data without the cameras beyond.

    Returns:
        {"bundle", "bytes", "cameras"}.

    Raises:
        Error: spec_bad_value, bundle_* for the old bundle, those of the golden drive's source, write_failed.
    """
    bundle = Bundle.load(bundle)
    check_target(out)
    old = bundle.spec.cameras
    cameras = old if cameras is None else cameras
    spec = spec_with_cameras(bundle.spec, cameras)
    files = {name: bundle.read(name) for name in bundle.manifest["files"]}
    for name in files:
        if name.startswith("camera.") and name.endswith(".onnx"):  # INT8 bundles have it in two typings
            files[name] = with_cameras(files[name], cameras)
    parts = {part: files.pop(f"{part}.onnx") for part in PARTS}
    del files["golden.npz"]

    frames = [frame.with_cameras(cameras) for frame in read_golden(bundle)]
    if golden is not None:
        frames = pack_drive(golden_samples(golden, frames[0].rig, spec))
    with open_parts(spec, frames[0].rig, parts) as detector:
        drive = with_results(frames, detector)
    provenance = dict(bundle.manifest["provenance"])
    if cameras != old:
        provenance = _provenance(provenance, old, cameras)
    if golden is not None:
        provenance["golden"] = golden_source(golden)
    metrics = bundle.manifest["metrics"]
    write_bundle(out, spec, parts["camera"], parts["bev"], drive, metrics, provenance, files, bundle.contract)
    return {"bundle": str(out), "bytes": sum(p.stat().st_size for p in Path(out).iterdir()), "cameras": cameras}


def spec_with_cameras(spec: ModelSpec, cameras: int) -> ModelSpec:
    """A copy of the spec for another number of cameras; raises Error spec_bad_value."""
    return ModelSpec.from_json(json.dumps({**json.loads(spec.to_json()), "cameras": cameras}))


def _provenance(provenance: Mapping[str, Any], old: int, new: int) -> dict[str, Any]:
    """The provenance with the number of cameras of the training, and the cost of the new batch."""
    result = {**provenance, "cameras": {"exported": new, "trained": provenance.get("cameras", {}).get("trained", old)}}
    if camera := provenance.get("parts", {}).get("camera.onnx"):
        camera = {**camera, "gflops": round(camera["gflops"] * new / old, 4)}
        result["parts"] = {**provenance["parts"], "camera.onnx": camera}
    return result
