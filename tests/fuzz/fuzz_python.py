"""Runs one target of python/ under atheris: fuzz_python.py NAME [options of libFuzzer] FOLDER_OR_FILE..."""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "build" / "fuzz" / "python")]

import atheris  # noqa: E402
from fuzz import json_values  # noqa: E402


class PlainLoaders:
    """Gives imkd_edge's sources to Python's own loader: atheris cannot instrument what an editable install loads."""

    def __init__(self):
        self.finders = list(sys.meta_path)

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name.split(".")[0] != "imkd_edge":
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.origin is None:
            return spec
        return spec_from_file_location(name, spec.origin, submodule_search_locations=spec.submodule_search_locations)


def one(data: bytes) -> None:
    with contextlib.suppress(Error):
        run(data)


def by_value(data: bytes, most: int, seed: int) -> bytes:
    return json_values.change(data, most, seed, atheris.Mutate)


sys.meta_path.insert(0, PlainLoaders())
with atheris.instrument_imports(include=["imkd_edge", "fuzz"]):
    run = import_module(f"fuzz.python.{sys.argv[1]}").run
    from imkd_edge.errors import Error

    for seed in sorted((ROOT / "tests" / "fuzz" / "corpus" / sys.argv[1]).iterdir()):
        one(seed.read_bytes())  # what is imported on first use is instrumented too
    loader = type(sys.modules[Error.__module__].__loader__).__name__
    assert loader.startswith("Atheris"), f"the readers are loaded by {loader}, so that atheris sees nothing of them"

mutator = {"custom_mutator": by_value} if sys.argv[1] in json_values.TARGETS else {}
atheris.Setup([sys.argv[0], *sys.argv[2:]], one, **mutator)
atheris.Fuzz()
