"""Runs one target of python/ under atheris: fuzz_python.py NAME [options of libFuzzer] FOLDER_OR_FILE..."""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "build" / "fuzz" / "python")]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["imkd_edge", "fuzz"]):
    run = import_module(f"fuzz.python.{sys.argv[1]}").run
    from imkd_edge.errors import Error


def one(data: bytes) -> None:
    with contextlib.suppress(Error):
        run(data)


atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
atheris.Fuzz()
