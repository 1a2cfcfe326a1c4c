"""Builds TensorRT engines from a bundle's ONNX parts on the machine that runs them; for TensorRT 10.3 to 11.

The network is strongly typed: dtypes and Q/DQ pairs come from the ONNX part, without a calibrator or precision flags. A
bundle's parts are float32 outside their Q/DQ pairs, so that every engine runs them; they are written in float16 here.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import time
from pathlib import Path
from typing import Any, Protocol

from imkd_edge.bundle.files import write_atomically
from imkd_edge.bundle.format import PARTS, Bundle
from imkd_edge.engines.cache import cache_key, mismatches, store
from imkd_edge.engines.gpu import Gpu, find_gpu
from imkd_edge.engines.io import IO, set_io
from imkd_edge.errors import Code, Error
from imkd_edge.options import BuildOptions

BUILDERS = (
    "tensorrt",
    "tensorrt_rtx",
)  # tensorrt_rtx also builds without a GPU; only TensorRT for RTX loads the result
PRECISIONS = ("float16", "float32")
NO_KERNEL = "implementation for node"  # of TensorRT's message where no kernel has a node's types
NO_DLA = "its Q/DQ pairs keep INT8 layers off the DLA before TensorRT 11.4: they run on the GPU; build the float bundle"
NO_GPU = Gpu("none", "none", "none", "none")


class Progress(Protocol):
    """Receives the phases of a build; phases are nested."""

    def start(self, phase: str, steps: int) -> None: ...
    def step(self, phase: str, step: int) -> None: ...
    def finish(self, phase: str) -> None: ...


def engine_folder(bundle: Bundle) -> Path:
    """The default folder of engines: NAME.engines beside NAME.imkd, because a bundle rejects additional files."""
    return bundle.path.absolute().with_suffix(".engines")


def build_engines(
    bundle: str | os.PathLike[str] | Bundle, options: BuildOptions, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Builds camera.engine and bev.engine; an engine whose key still matches is not built again.

    Args:
        bundle: a Bundle, the path of one, or the name of a shipped one.
        options: what to build and where to write it.
        progress: receives the phases of TensorRT's builder.

    Returns:
        {"bundle", "builder", "engines": [{"part", "path", "bytes", "built", "why", "seconds", "warnings", "key"}],
        "timing_cache"}; "why" lists the reasons for building, "seconds" is the time of build and check.

    Raises:
        Error: spec_bad_value for another io or precision, engine_unavailable without a package, device_unavailable
            without a GPU or that DLA core, engine_load for an error of TensorRT, write_failed for one of the disk.
    """
    # 1. check options, package and machine
    _require("form of tensors", options.io, IO, "--io")
    _require("precision", options.precision, PRECISIONS, "--precision")
    bundle = Bundle.load(bundle)
    trt = _package(options.builder)
    gpu = _gpu(options.builder)
    # 2. build each part whose key differs
    folder = Path(options.out) if options.out is not None else engine_folder(bundle)
    flags = {name: getattr(options, name) for name in ("dla", "io", "precision", "workspace_mb")}
    engines = []
    for part in PARTS:
        onnx, content = bundle.file(f"{part}.onnx"), bundle.read(f"{part}.onnx")
        sha256 = hashlib.sha256(content).hexdigest()
        package = f"{options.builder} {trt.__version__}"
        key = cache_key(sha256, package, gpu.cuda, gpu.driver, gpu.name, gpu.sm, flags)
        engines.append(_build_part(onnx, content, folder / f"{part}.engine", key, _Build(trt, options, progress)))
    return {
        "bundle": str(bundle.path),
        "builder": options.builder,
        "engines": engines,
        "timing_cache": str(options.timing_cache) if options.timing_cache is not None else None,
    }


def _build_part(onnx: Path, content: bytes, engine: Path, key: dict[str, Any], build: _Build) -> dict[str, Any]:
    start = time.monotonic()
    warnings: list[str] = []
    if reasons := mismatches(engine, key):
        data, warnings = build.run(build.typed(content, str(onnx)), str(onnx))
        if build.options.dla is not None and b"QuantizeLinear" in content:
            warnings.append(NO_DLA)
        store(engine, data, key)
    return {
        "part": onnx.stem,
        "path": str(engine),
        "bytes": engine.stat().st_size,
        "built": bool(reasons),
        "why": reasons,
        "seconds": time.monotonic() - start,
        "warnings": warnings,
        "key": key,
    }


def _require(what: str, value: str, allowed: tuple[str, ...], where: str) -> None:
    if value not in allowed:
        raise Error(Code.spec_bad_value, f"no {what} {value!r}", where, f"choose one of: {', '.join(allowed)}")


def _package(builder: str) -> Any:
    if builder not in BUILDERS:
        fix = f"choose one of: {', '.join(BUILDERS)}"
        raise Error(Code.engine_unavailable, f'there is no builder "{builder}"', "--builder", fix)
    try:
        return importlib.import_module(builder)
    except ImportError as error:
        jetson = "sudo apt install python3-libnvinfer, and create the venv with --system-site-packages"
        fix = f"on a Jetson: {jetson}; elsewhere: pip install tensorrt"
        if builder == "tensorrt_rtx":
            fix = "pip install tensorrt-rtx"
        raise Error(Code.engine_unavailable, f"{builder} cannot be imported: {error}", "", fix) from error


def _gpu(builder: str) -> Gpu:
    """The GPU on which TensorRT times kernels; found first, as TensorRT may crash without a driver."""
    try:
        return find_gpu()
    except Error:
        if builder == "tensorrt":
            raise
        return NO_GPU


class _Build:
    """Builds one engine. Subclasses of TensorRT's classes are defined inside, because its package is imported late."""

    def __init__(self, trt: Any, options: BuildOptions, progress: Progress | None = None) -> None:
        self._trt, self.options, self._progress = trt, options, progress
        self._cache = None if options.timing_cache is None else Path(options.timing_cache)
        self._messages: dict[str, list[str]] = {"error": [], "warning": []}
        self._interrupted = False

    def typed(self, part: bytes, where: str) -> bytes:
        """The ONNX part in the precision of the options; arguments as those of `run`."""
        if self.options.precision == "float32":
            return part
        try:
            from imkd_edge.engines.float16 import half_bytes
        except ImportError as error:
            fix = "pip install onnx, or --precision float32, which is slower"
            raise Error(
                Code.engine_unavailable, f"float16 needs the package onnx: {error}", "--precision", fix
            ) from error
        try:
            return half_bytes(part)
        except Exception as error:  # onnx has no common base of what it raises
            problem = f"cannot write this part in float16: {str(error).strip()}"
            raise Error(Code.engine_load, problem, where, "build it with --precision float32") from error

    def run(self, onnx: bytes, where: str) -> tuple[bytes, list[str]]:
        """Builds one engine.

        Args:
            onnx: content of the ONNX file.
            where: its path, for errors.

        Returns:
            The engine's bytes and TensorRT's warnings.
        """
        # 1. parse the ONNX file into a network
        trt = self._trt
        logger = self._logger()
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(onnx):
            self._messages["error"] += [parser.get_error(i).desc() for i in range(parser.num_errors)]
            raise self._failure("cannot parse this ONNX file", where)
        if self.options.io == "auto":
            set_io(trt, network)
        # 2. build it
        config = self._config(builder, where)
        data = builder.build_serialized_network(network, config)
        if self._interrupted:
            raise KeyboardInterrupt
        if data is None:
            raise self._failure("cannot build this network", where)
        # 3. keep the kernel times for the next build
        if self._cache and (timings := config.get_timing_cache()) is not None:
            write_atomically(self._cache, bytes(timings.serialize()))
        return bytes(data), list(dict.fromkeys(self._messages["warning"]))

    def _config(self, builder: Any, where: str) -> Any:
        trt, workspace_mb, dla = self._trt, self.options.workspace_mb, self.options.dla
        config = builder.create_builder_config()
        if workspace_mb is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
        if dla is not None:
            if dla >= builder.num_DLA_cores:
                problem = f"there is no DLA core {dla}: this machine has {builder.num_DLA_cores}"
                raise Error(Code.device_unavailable, problem, "--dla", "leave --dla out to build for the GPU")
            config.default_device_type, config.DLA_core = trt.DeviceType.DLA, dla
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        if self._cache:
            self._load_timings(config)
        config.progress_monitor = self._monitor()
        return config

    def _load_timings(self, config: Any) -> None:
        """Loads the timing cache; times of another machine or version are discarded with a warning."""
        data = self._cache.read_bytes() if self._cache and self._cache.is_file() else b""
        timings = config.create_timing_cache(data)
        if timings is None or not config.set_timing_cache(timings, False):
            problem = f"{self._cache} is of another machine or version: its times are not used"
            self._messages["warning"].append(problem)
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def _failure(self, problem: str, where: str) -> Error:
        reasons = "; ".join(dict.fromkeys(self._messages["error"])) or "no reason given"
        fix = "export the model again, or see TensorRT's list of ONNX operators"
        if NO_KERNEL in reasons:
            layer = f"--keep-float {Path(where).stem}/LAYER for a layer of that node"
            fix = f"quantize an INT8 bundle again with {layer}; build a float one with --precision float32"
        return Error(Code.engine_load, f"TensorRT {problem}: {reasons}", where, fix)

    def _logger(self) -> Any:
        messages = self._messages
        base: Any = self._trt.ILogger
        levels = {
            base.Severity.INTERNAL_ERROR: "error",
            base.Severity.ERROR: "error",
            base.Severity.WARNING: "warning",
        }

        class Logger(base):
            def __init__(self) -> None:
                base.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in levels:
                    messages[levels[severity]].append(message)

        return Logger()

    def _monitor(self) -> Any:
        """Forwards the phases; no exception may pass through TensorRT, so `run` raises an interruption."""
        build, progress = self, self._progress
        base: Any = self._trt.IProgressMonitor

        class Monitor(base):
            def __init__(self) -> None:
                base.__init__(self)

            def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
                self._report("start", phase, steps)

            def step_complete(self, phase: str, step: int) -> bool:
                self._report("step", phase, step)
                return not build._interrupted

            def phase_finish(self, phase: str) -> None:
                self._report("finish", phase)

            def _report(self, event: str, *arguments: Any) -> None:
                try:
                    if progress is not None:
                        getattr(progress, event)(*arguments)
                except KeyboardInterrupt:
                    build._interrupted = True

        return Monitor()
