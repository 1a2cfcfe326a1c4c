"""Whether an engine file may be used: it serves one ONNX file, one TensorRT and one machine, and NAME.engine.json says which.

    {"key": {what cache_key returns}, "engine": {"sha256": hex, "bytes": n}}

The file is written beside its place and renamed, the engine before its JSON: whoever is interrupted leaves a pair that does not
match, which is built again.
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
    """All that an engine file depends on; two engines with the same key may stand for each other.

    Args:
        onnx_sha256: of the ONNX file, in hex.
        tensorrt: package and version, "tensorrt 10.3.0".
        cuda: version of CUDA that the driver implements, "12.6".
        driver: version of the kernel's driver, "540.4.0".
        gpu: name of the device, "Orin".
        sm: its compute capability, "87".
        flags: how it was built, by option.
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
    """Why the engine file must not be used for this key, one reason each; empty where it may.

    Args:
        engine: path of NAME.engine; it and NAME.engine.json may be absent or broken.
        key: what `cache_key` returned.
    """
    record = card(engine)
    if not engine.is_file() or not record.is_file():
        return [f"there is no {(record if engine.is_file() else engine).name}"]
    try:
        written = json.loads(record.read_text(encoding="utf-8"))
        found, sha256 = dict(written["key"]), written["engine"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{record.name} cannot be read: {error}"]
    reasons = [
        f"{name} is {key.get(name)!r}, the engine's {found.get(name)!r}"
        for name in sorted({*key, *found})
        if key.get(name) != found.get(name)
    ]
    if _sha256(engine) != sha256:
        reasons.append(f"{engine.name} is not the file that {record.name} describes")
    return reasons


def store(engine: Path, data: bytes, key: Mapping[str, Any]) -> None:
    """Writes NAME.engine and its JSON, each whole or not at all.

    Raises:
        Error: write_failed; what stood there before is still there, or is found stale.
    """
    record = {"key": dict(key), "engine": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
    write_atomically(engine, data)
    write_atomically(card(engine), json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")


def card(engine: Path) -> Path:
    """The JSON beside an engine file."""
    return engine.with_name(f"{engine.name}.json")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
