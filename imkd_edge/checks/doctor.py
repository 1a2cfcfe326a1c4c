"""Checks the machine and the installation; each check reports a detail and how to mend a fault."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any

from imkd_edge.engines.gpu import find_gpu
from imkd_edge.errors import Code, Error

OK, WARN, FAIL = "ok", "warn", "fail"
TRUST = "IMKD_EDGE_TRUST"  # the environment variable of imkd/detector.hpp
UNSIGNED = f"E{int(Code.bundle_unsigned):04d}"


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    status: str  # ok; warn: works with limits; fail: does not work
    detail: str
    fix: str = ""


def examine(bundle: str = "tiny", rig: str | Path | None = None, trust: str | None = None) -> dict[str, Any]:
    """Runs every check; an exception in a check becomes a failure.

    Args:
        bundle: whose contract the rig is held against, and whose signature is verified.
        rig: JSON file of a SensorRig; None: no such check.
        trust: folder of public keys, as in `Bundle.load`; None: no such check.

    Returns:
        {"status": the worst of all, "checks": [{"name", "status", "detail", "fix"}]}.
    """
    checks: list[Check] = []
    asked: dict[str, Callable[[], Check | list[Check]]] = {}
    if rig is not None:
        asked["contract"] = lambda: [*_rig(rig), *_contract(bundle, rig)]
    if trust is not None:
        asked[f"signature {bundle}"] = lambda: _signature(bundle, trust)
    for name, check in {**CHECKS, **asked}.items():
        try:
            result = check()
        except Error as error:
            result = _failure(name, error)
        except Exception as error:
            result = Check(name, FAIL, f"{type(error).__name__}: {error}", "install the package again")
        checks += result if isinstance(result, list) else [result]
    worst = max((check.status for check in checks), key=[OK, WARN, FAIL].index)
    return {"status": worst, "checks": [asdict(check) for check in checks]}


def _failure(name: str, error: Error) -> Check:
    """A fault; a shipped bundle that a fleet's policy refuses, being unsigned, is none of the machine."""
    if error.code == UNSIGNED and not name.startswith("signature"):
        return Check(name, WARN, f"not loaded: {TRUST} requires a signature, and it has none", error.fix)
    return Check(name, FAIL, f"{error.code} {error.what}: {error.where}", error.fix)


def _python() -> Check:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {platform.platform()}"
    return Check("python", OK, detail)


def _core() -> Check:
    import imkd_edge._core as _core

    version, library = metadata.version("imkd-edge"), Path(_core.__file__).name
    engines = ", ".join(_core.native_engines()) or "none"
    return Check("core", OK, f"imkd-edge {version}, {library}, native engines: {engines}")


# A module of each part of the package -> the extra that it needs.
_PARTS = {
    "imkd_edge.live": "",
    "imkd_edge.sources.synth": "",
    "imkd_edge.view.save": "",
    "imkd_edge.bench": "",
    "imkd_edge.evaluation.run": "",
    "imkd_edge.calibration.collect": "",
    "imkd_edge.evaluation.compare": "quantize",
    "imkd_edge.predict.roofline": "quantize",
    "imkd_edge.quantization.quantize": "quantize",
    "imkd_edge.training.program": "train",
    "imkd_edge.quantization.qat": "train",
}


def _parts() -> list[Check]:
    """Imports every part of the package; packages of an extra may be missing, modules of imkd_edge may not."""
    missing, extras = [], {}
    for module, extra in _PARTS.items():
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            name = error.name or module
            if name.split(".")[0] == "imkd_edge":
                missing.append(name)
            else:
                extras[extra] = name
    if missing:
        fix = "pip install --force-reinstall imkd-edge"
        parts = Check("parts", FAIL, f"this installation lacks {', '.join(missing)}", fix)
    else:
        parts = Check("parts", OK, f"{len(_PARTS)} of {len(_PARTS)} import")
    return [parts, *(_missing_extra(extra, name) for extra, name in extras.items())]


def _missing_extra(extra: str, package: str) -> Check:
    return Check(f"extra {extra}", OK, f"not installed: no {package}", f'pip install "imkd-edge[{extra}]"')


def _numpy() -> Check:
    return Check("numpy", OK, metadata.version("numpy"))


def _opencv() -> Check:
    fix = 'pip install "opencv-python-headless<5"'
    if util.find_spec("cv2") is None:
        return Check("opencv", WARN, "not installed: recordings cannot be read, pictures not drawn", fix)
    import cv2

    if int(cv2.__version__.split(".")[0]) >= 5:
        return Check("opencv", WARN, f"{cv2.__version__} is not tested", fix)
    return Check("opencv", OK, cv2.__version__)


def _onnxruntime() -> Check:
    if util.find_spec("onnxruntime") is None:
        return Check("onnxruntime", FAIL, "not installed", "pip install onnxruntime")
    import onnxruntime

    names = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    detail = f"{onnxruntime.__version__}, built with {', '.join(onnxruntime.get_available_providers())}"
    if len(names) > 1:
        fix = "pip uninstall onnxruntime onnxruntime-gpu, then install one of the two"
        return Check(
            "onnxruntime", FAIL, "onnxruntime and onnxruntime-gpu are both installed and overwrite each other", fix
        )
    return Check("onnxruntime", OK, detail)


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _cuda() -> Check:
    """Queries the driver for a device: a library that loads does not prove that there is one."""
    try:
        gpu = find_gpu()
    except Error as error:
        return Check("cuda", WARN, f"{error.what}: the networks run on the CPU", error.fix)
    return Check("cuda", OK, f"{gpu.name}, sm {gpu.sm}, driver {gpu.driver} for CUDA {gpu.cuda}")


def _device() -> Check:
    """The device that Detector(device="auto") chooses on this machine."""
    import imkd_edge._core as _core

    try:
        _core.require_cuda()
    except Error as error:
        return Check("device", OK, f"auto is the CPU here: {error.what}", error.fix)
    if "tensorrt" not in _core.native_engines():
        detail = 'auto is the CPU here: the core was built without TensorRT; device "cuda" takes a named engine'
        fix = "build it where NvInfer.h is found, or name an engine of the GPU that would work"
        return Check("device", WARN, detail, fix)
    detail = "auto is the GPU for a bundle whose engines are built (imkd-edge build-engine), else the CPU"
    return Check("device", OK, detail)


def _graph(bundle: str = "tiny") -> Check:
    """Whether frames on the GPU are replayed as one CUDA graph, which saves the time of every launch."""
    from imkd_edge.bundle.format import Bundle
    from imkd_edge.bundle.golden import golden_rig
    from imkd_edge.checks.selftest import replay
    from imkd_edge.detector import Detector

    loaded = Bundle.load(bundle)
    with Detector(loaded, golden_rig(loaded)) as detector:
        if detector.device != "cuda":
            return Check("cuda graph", OK, f"not used: {detector.why_not_replayed}")
        replayed = [result.replayed for result in replay(loaded, detector)]
        if any(replayed):
            return Check("cuda graph", OK, f"{sum(replayed)} of {len(replayed)} frames were replayed")
        fix = "imkd-edge build-engine, for networks that run on the GPU"
        return Check("cuda graph", WARN, f"no frame is replayed: {detector.why_not_replayed}", fix)


def _engines() -> list[Check]:
    """Which engines would work here, and what is missing for the others."""
    from imkd_edge.checks.engines import engines

    checks = []
    for name, missing in engines().items():
        detail = f"lacks {', '.join(item.what for item in missing)}" if missing else "would work"
        checks.append(Check(f"engine {name}", OK, detail, "; ".join(dict.fromkeys(item.fix for item in missing))))
    return checks


def _threads() -> Check:
    usable, present = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    quota = _cgroup_quota()
    detail = f"{usable} of {present} cores usable" + (f", container limit {quota:g} cores" if quota else "")
    if quota and quota < usable:
        fix = f"give --threads {max(1, int(quota))}: more threads than cores wait for each other"
        return Check("threads", WARN, detail, fix)
    return Check("threads", OK, detail)


def _cgroup_quota() -> float | None:
    """The container's limit in cores; None without a limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _bundles() -> list[Check]:
    from imkd_edge.bundle.format import shipped

    nothing = Check("bundles", FAIL, "no bundle is shipped with this installation", "install the package again")
    return [_bundle(name) for name in shipped()] or [nothing]


def _bundle(name: str) -> Check:
    from imkd_edge.bundle.format import Bundle

    title = f"bundle {name}"
    try:
        bundle = Bundle.load(name)
    except Error as error:
        return _failure(title, error)
    size = sum(entry["bytes"] for entry in bundle.manifest["files"].values())
    detail = f"{len(bundle.manifest['files'])} files verified, {size / 1e6:.1f} MB, {bundle.signature}"
    return Check(title, OK, detail)


def _signature(bundle: str, trust: str) -> Check:
    """Who signed a bundle."""
    from imkd_edge.bundle.format import Bundle

    title, loaded = f"signature {bundle}", Bundle.load(bundle, trust)
    fix = "" if loaded.signature.present else "imkd-edge export BUNDLE --sign KEY"
    return Check(title, OK if loaded.signature.present else WARN, str(loaded.signature), fix)


def _signatures() -> Check:
    """What verifies signatures here, and what the environment asks for."""
    import imkd_edge._core as _core

    policy = os.environ.get(TRUST, "")
    asked = f"{TRUST} is {policy}" if policy else f"{TRUST} is not set: only a program's own trust counts"
    try:
        return Check("signatures", OK, f"{_core.crypto_library()}; {asked}")
    except Error as error:
        return Check("signatures", FAIL if policy else OK, f"cannot be verified: {error.what}; {asked}", error.fix)


def _rig(rig: str | Path) -> list[Check]:
    """What `imkd-edge check` says of a rig without a frame: its mountings, and what its cameras see."""
    from imkd_edge.checks.data.rig import judge
    from imkd_edge.rig import SensorRig

    checks = []
    for finding in judge(SensorRig.load(str(rig)), str(rig)):
        # a wide fisheye sees little of a grid, too: without a named mistake the detector works with the other sensors
        certain = finding.is_error and not finding.what.endswith("cross a usual grid")
        checks.append(Check("rig", FAIL if certain else WARN, f"{finding.code} {finding.what}", finding.fix))
    return checks


def _contract(bundle: str, rig: str | Path) -> list[Check]:
    """In what a rig is unlike the data that a bundle was trained on."""
    from imkd_edge.bundle.format import Bundle
    from imkd_edge.checks.contract import compare_rig
    from imkd_edge.rig import SensorRig

    loaded, name, sensors = Bundle.load(bundle), f"contract {bundle}", SensorRig.load(str(rig))
    warnings = compare_rig(loaded, sensors)
    fix = "correct the rig, or train for it"
    if warnings:
        return [Check(name, WARN, f"{warning.code} {warning.text}", fix) for warning in warnings]
    if loaded.contract is None:
        return [Check(name, WARN, "no contract: unknown what it was trained on", "imkd-edge contract")]
    return [Check(name, OK, f"{rig} is like the rigs of {loaded.contract.data}")]


def _golden() -> list[Check]:
    from imkd_edge.bundle.format import shipped

    return [_replay(name) for name in shipped()]


def _replay(name: str) -> Check:
    """Runs the bundle's golden drive here and compares the results with the exporter's."""
    from imkd_edge.checks.selftest import beyond_tolerance, check_golden

    title = f"golden {name}"
    try:
        differences = check_golden(name)
    except Error as error:
        return _failure(title, error)
    if excess := beyond_tolerance(differences):
        tensors = ", ".join(f"{key} by {value:.3g}" for key, value in excess.items())
        fix = "install the versions on its card, or export again here"
        return Check(title, FAIL, f"this machine differs from the exporter's in {tensors}", fix)
    boxes, scores = differences["boxes"], differences["scores"]
    return Check(title, OK, f"same boxes as the exporter's to {boxes:.1g} m, scores to {scores:.1g}")


def _synth() -> Check:
    from imkd_edge.sources import open_source

    source = open_source("synth")
    sample = source[source.names[0]]
    points = sum(len(sweep.points) for sweep in sample.radar)
    return Check("sensor data", OK, f"synth frame {sample.name}: {len(sample.frames)} images, {points} radar points")


CHECKS: dict[str, Callable[[], Check | list[Check]]] = {
    "python": _python,
    "core": _core,
    "parts": _parts,
    "numpy": _numpy,
    "opencv": _opencv,
    "onnxruntime": _onnxruntime,
    "cuda": _cuda,
    "engines": _engines,
    "device": _device,
    "cuda graph": _graph,
    "threads": _threads,
    "signatures": _signatures,
    "bundles": _bundles,
    "golden": _golden,
    "sensor data": _synth,
}
