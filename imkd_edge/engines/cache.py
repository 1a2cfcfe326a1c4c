"""Decides whether an engine file may be used: NAME.engine.json records its ONNX file, TensorRT version and machine.

    {"key": {what cache_key returns}, "engine": {"sha256": hex, "bytes": n}}

Each file is written to a temporary file and renamed, the engine first. An interruption between the two leaves an
engine that does not match its JSON, which is built again. An engine is executable code: only the user that built it
may read or change it (mode 0600), and one that others may change is built again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imkd_edge.bundle.files import write_atomically


def cache_key(
    onnx_sha256: str, tensorrt: str, cuda: str, driver: str, gpu: str, sm: str, flags: Mapping[str, str | int | None]
) -> dict[str, Any]:
    """Everything that an engine file depends on; engines with equal keys are interchangeable.

    Args:
        onnx_sha256: of the ONNX file, in hex.
        tensorrt: package and version, "tensorrt 10.3.0".
        cuda: version of CUDA that the driver implements, "12.6".
        driver: version of the kernel driver, "540.4.0".
        gpu: name of the device, "Orin".
        sm: compute capability of the device, "87".
        flags: build option -> value.
    """
    return {
        "onnx_sha256": onnx_sha256,
        "tensorrt": tensorrt,
        "cuda": cuda,
        "driver": driver,
        "gpu": gpu,
        "sm": sm,
        "flags": dict(sorted(flags.items())),
    }


def mismatches(engine: Path, key: Mapping[str, Any]) -> list[str]:
    """The reasons why the engine file does not fit this key; empty where it does.

    Args:
        engine: path of NAME.engine; it and NAME.engine.json may be absent or broken.
        key: from `cache_key`.
    """
    record = record_path(engine)
    if not engine.is_file() or not record.is_file():
        return [f"there is no {(record if engine.is_file() else engine).name}"]
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        engine_key, sha256 = {**content["key"]}, content["engine"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return [f"{record.name} cannot be read: {error}"]
    reasons = [
        f"{name} is {key.get(name)!r}, the engine's {engine_key.get(name)!r}"
        for name in sorted({*key, *engine_key})
        if key.get(name) != engine_key.get(name)
    ]
    if engine.stat().st_mode & 0o022:
        reasons.append("other users can change it")
    if _sha256(engine) != sha256:
        reasons.append(f"{engine.name} is not the file that {record.name} describes")
    return reasons


def store(engine: Path, data: bytes, key: Mapping[str, Any]) -> None:
    """Writes NAME.engine and its JSON, each completely or not at all.

    Args:
        engine: path of NAME.engine.
        data: its content.
        key: from `cache_key`.

    Raises:
        Error: write_failed; the old pair is unchanged or no longer matches.
    """
    record = {"key": dict(key), "engine": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
    write_atomically(engine, data, private=True)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_atomically(record_path(engine), text.encode(), private=True)


def record_path(engine: Path) -> Path:
    """Path of the JSON file beside an engine file."""
    return engine.with_name(f"{engine.name}.json")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
