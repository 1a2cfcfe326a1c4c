"""The record beside a TensorRT engine."""

from fuzz import scratch

from imkd_edge.engines.cache import mismatches, record_path


def run(data: bytes) -> None:
    engine = scratch.file("part.engine", b"engine")
    record_path(engine).write_bytes(data)
    assert all(isinstance(reason, str) for reason in mismatches(engine, {"gpu": "Orin", "sm": "87"}))
