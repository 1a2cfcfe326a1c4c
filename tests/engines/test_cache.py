"""An engine file is used only where every element of its key still matches."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from imkd_edge.engines import cache
from imkd_edge.engines.cache import cache_key, mismatches, record_path, store
from imkd_edge.errors import Code, Error

ELEMENTS = {
    "onnx_sha256": "a" * 64,
    "tensorrt": "tensorrt 10.3.0",
    "cuda": "12.6",
    "driver": "540.4.0",
    "gpu": "Orin",
    "sm": "87",
    "flags": {"dla": None, "io": "auto", "precision": "float16", "workspace_mb": 512},
}
OTHER = {
    "onnx_sha256": "b" * 64,
    "tensorrt": "tensorrt 10.3.1",
    "cuda": "12.8",
    "driver": "540.5.0",
    "gpu": "NVIDIA Thor",
    "sm": "110",
    "flags": {"dla": 0, "io": "auto", "precision": "float16", "workspace_mb": 512},
}


def key(**changes: Any) -> dict[str, Any]:
    return cache_key(**{**ELEMENTS, **changes})


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engines" / "camera.engine"
    store(path, b"the engine", key())
    return path


def test_the_tests_change_every_element_of_the_key() -> None:
    assert OTHER.keys() == key().keys() == {"onnx_sha256", "tensorrt", "cuda", "driver", "gpu", "sm", "flags"}
    assert all(OTHER[name] != ELEMENTS[name] for name in ELEMENTS)


def test_an_engine_with_its_own_key_is_used(engine: Path) -> None:
    assert mismatches(engine, key()) == []
    assert engine.read_bytes() == b"the engine"


def test_only_its_owner_can_read_or_change_an_engine(engine: Path) -> None:
    """It is executable code; the rights hold from its first byte on, under any umask."""
    for path in (engine, record_path(engine)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = os.umask(0)
    try:
        store(engine, b"another", key())
    finally:
        os.umask(before)
    assert stat.S_IMODE(engine.stat().st_mode) == 0o600 and mismatches(engine, key()) == []


@pytest.mark.parametrize("others", [0o020, 0o002])
def test_an_engine_that_others_can_change_is_built_again(engine: Path, others: int) -> None:
    engine.chmod(0o600 | others)
    assert mismatches(engine, key()) == ["other users can change it"]


def test_the_order_of_flags_is_no_difference(engine: Path) -> None:
    assert mismatches(engine, key(flags={"workspace_mb": 512, "precision": "float16", "io": "auto", "dla": None})) == []


@pytest.mark.parametrize("element", sorted(OTHER))
def test_one_other_element_refuses_the_engine_and_is_named(engine: Path, element: str) -> None:
    changed = key(**{element: OTHER[element]})
    (reason,) = mismatches(engine, changed)
    assert reason.startswith(element) and str(OTHER[element]) in reason


@pytest.mark.parametrize(
    "flags", [{"dla": None}, {"dla": None, "workspace_mb": 256}, {"dla": None, "workspace_mb": 512, "new": 1}]
)
def test_every_flag_counts_absent_ones_too(engine: Path, flags: dict[str, Any]) -> None:
    assert len(mismatches(engine, key(flags=flags))) == 1


def test_an_element_that_only_the_file_has_counts(engine: Path) -> None:
    record = json.loads(record_path(engine).read_text())
    record["key"]["cudnn"] = "9"
    record_path(engine).write_text(json.dumps(record))
    assert mismatches(engine, key()) == ["cudnn is None, the engine's '9'"]


def test_a_changed_byte_of_the_engine_is_a_reason(engine: Path) -> None:
    engine.write_bytes(b"the engine.")
    assert mismatches(engine, key()) == ["camera.engine is not the file that camera.engine.json describes"]


@pytest.mark.parametrize("absent", ["camera.engine", "camera.engine.json"])
def test_a_missing_file_is_named(engine: Path, absent: str) -> None:
    (engine.parent / absent).unlink()
    assert mismatches(engine, key()) == [f"there is no {absent}"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"key": {}}', '{"key": 3, "engine": {"sha256": ""}}', '{"key": {}, "engine": 1}']
)
def test_a_broken_record_is_a_reason_not_a_crash(engine: Path, text: str) -> None:
    record_path(engine).write_text(text)
    (reason,) = mismatches(engine, key())
    assert "camera.engine.json cannot be read" in reason


def test_a_record_that_is_not_text_is_a_reason(engine: Path) -> None:
    record_path(engine).write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in mismatches(engine, key())[0]


def test_a_disk_that_fails_leaves_the_old_engine_and_nothing_else(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Error) as failed:
        store(engine, b"a new engine", key())
    assert failed.value.code == "E0702" and failed.value.code != Code.engine_stale
    assert mismatches(engine, key()) == [] and engine.read_bytes() == b"the engine"
    assert sorted(path.name for path in engine.parent.iterdir()) == ["camera.engine", "camera.engine.json"]


def test_an_interruption_between_the_two_files_leaves_a_mismatch(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = cache.write_atomically

    def interrupt_the_record(path: Path, data: bytes, private: bool) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(cache, "write_atomically", interrupt_the_record)
    with pytest.raises(KeyboardInterrupt):
        store(engine, b"a new engine", key())
    assert mismatches(engine, key()) == ["camera.engine is not the file that camera.engine.json describes"]
