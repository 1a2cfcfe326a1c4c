"""A stand-in for the Python package `tensorrt` 10.3: records the calls of build-engine and builds nothing."""

from __future__ import annotations

import enum
import types
from typing import Any


class FakeTensorRT(types.ModuleType):
    """The module; `refuses` is the reason why the next networks are not built."""

    __version__ = "10.3.0"
    NetworkDefinitionCreationFlag = enum.IntEnum(
        "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    )
    MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
    DeviceType = enum.Enum("DeviceType", ["GPU", "DLA"])
    BuilderFlag = enum.Enum("BuilderFlag", ["FP16", "INT8", "GPU_FALLBACK"])

    class ILogger:
        Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

        def __init__(self) -> None: ...

    class IProgressMonitor:
        def __init__(self) -> None: ...

    def __init__(self) -> None:
        super().__init__("tensorrt")
        self.network_flags: list[int] = []
        self.parsed: list[bytes] = []
        self.configs: list[Any] = []
        self.refuses = ""

    def Builder(self, logger: Any) -> Any:
        return _Builder(self, logger)

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return types.SimpleNamespace(parse=lambda data: self.parsed.append(data) or True)


class _Builder:
    num_DLA_cores = 2

    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        self.trt, self.logger = trt, logger

    def create_network(self, flags: int) -> object:
        self.trt.network_flags.append(flags)
        return types.SimpleNamespace(num_inputs=0, num_outputs=0, num_layers=0)

    def create_builder_config(self) -> _Config:
        self.trt.configs.append(_Config())
        return self.trt.configs[-1]

    def build_serialized_network(self, network: object, config: _Config) -> bytes | None:
        if self.trt.refuses:
            self.logger.log(self.trt.ILogger.Severity.ERROR, self.trt.refuses)
            return None
        if config.timings:
            config.timings.data += b"+"
        return b"engine of " + self.trt.parsed[-1][:64]


class _Config:
    def __init__(self) -> None:
        self.limits: dict[Any, int] = {}
        self.flags: set[Any] = set()
        self.timings: Any = None

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.limits[pool] = size

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def create_timing_cache(self, data: bytes) -> Any:
        cache = types.SimpleNamespace(data=data or b"times")
        cache.serialize = lambda: cache.data
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if not cache.data.startswith(b"times") and not ignore_mismatch:
            return False
        self.timings = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.timings
