"""A bundle for another number of cameras: the same weights, another batch of the camera network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle import PARTS, Bundle, check_target, write_bundle
from imkd_edge.bundle.cameras import with_cameras
from imkd_edge.bundle.golden import read_golden
from imkd_edge.checks.observe import open_parts
from imkd_edge.checks.selftest import golden_with
from imkd_edge.rig import SensorRig
from imkd_edge.spec import ModelSpec


def export_with_cameras(bundle: str | os.PathLike[str] | Bundle, cameras: int, out: Path | str) -> dict[str, Any]:
    """Writes a bundle, float or INT8, for rigs with up to `cameras` cameras.

    Its golden frame is the old one without the cameras beyond; the metrics are those of the old bundle.

    Args:
        bundle: a Bundle, the path of one, or the name of a shipped one.
        cameras: 1 to 64.
        out: folder to make, NAME.imkd.

    Returns:
        {"bundle", "bytes", "cameras"}.

    Raises:
        Error: spec_bad_value, bundle_* for the old bundle, write_failed.
    """
    bundle = Bundle.load(bundle)
    check_target(out)
    old, spec = bundle.spec.cameras, spec_with_cameras(bundle.spec, cameras)
    files = {name: bundle.file(name).read_bytes() for name in bundle.manifest["files"]}
    for name in files:
        if name.startswith("camera.") and name.endswith(".onnx"):  # INT8 bundles have it in two typings
            files[name] = with_cameras(files[name], cameras)
    parts = {part: files.pop(f"{part}.onnx") for part in PARTS}
    del files["golden.npz"]

    golden = _first_cameras(*read_golden(bundle), cameras)
    rig = SensorRig.from_json(golden["rig"].tobytes().decode())
    with open_parts(spec, rig, parts) as detector:
        golden = golden_with(golden, detector)
    provenance = _provenance(bundle.manifest["provenance"], old, cameras)
    metrics = bundle.manifest["metrics"]
    write_bundle(out, spec, parts["camera"], parts["bev"], golden, metrics, provenance, files, bundle.contract)
    return {"bundle": str(out), "bytes": sum(p.stat().st_size for p in Path(out).iterdir()), "cameras": cameras}


def spec_with_cameras(spec: ModelSpec, cameras: int) -> ModelSpec:
    """A copy of the spec for another number of cameras; raises Error spec_bad_value."""
    return ModelSpec.from_json(json.dumps({**json.loads(spec.to_json()), "cameras": cameras}))


def _first_cameras(golden: dict[str, np.ndarray], rig: SensorRig, cameras: int) -> dict[str, np.ndarray]:
    """The golden frame without the cameras beyond the first `cameras`."""
    rig.cameras = list(rig.cameras)[:cameras]
    golden = {name: array for name, array in golden.items() if not _image_beyond(name, cameras)}
    golden["rig"] = np.frombuffer(rig.to_json().encode(), np.uint8)
    golden["camera_timestamps_ns"] = golden["camera_timestamps_ns"][:cameras]
    return golden


def _image_beyond(name: str, cameras: int) -> bool:
    return name.startswith("image_") and int(name.removeprefix("image_")) >= cameras


def _provenance(provenance: Mapping[str, Any], old: int, new: int) -> dict[str, Any]:
    """The provenance with the number of cameras of the training, and the cost of the new batch."""
    result = {**provenance, "cameras": {"exported": new, "trained": provenance.get("cameras", {}).get("trained", old)}}
    if camera := provenance.get("parts", {}).get("camera.onnx"):
        camera = {**camera, "gflops": round(camera["gflops"] * new / old, 4)}
        result["parts"] = {**provenance["parts"], "camera.onnx": camera}
    return result
