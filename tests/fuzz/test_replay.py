"""Every seed of the Python fuzz targets is read, or refused with a coded error; fuzzing itself: tests/fuzz/run."""

from __future__ import annotations

import contextlib
from importlib import import_module
from pathlib import Path

import pytest

from imkd_edge.errors import Error

HERE = Path(__file__).resolve().parent
TARGETS = sorted(path.stem for path in (HERE / "python").glob("*.py"))
SEEDS = [(target, seed) for target in TARGETS for seed in sorted((HERE / "corpus" / target).glob("*"))]


@pytest.mark.parametrize(("target", "seed"), SEEDS, ids=[f"{target}-{seed.name}" for target, seed in SEEDS])
def test_a_seed_is_read_or_refused_with_a_coded_error(target: str, seed: Path) -> None:
    with contextlib.suppress(Error):
        import_module(f"fuzz.python.{target}").run(seed.read_bytes())


def test_every_target_has_seeds() -> None:
    compiled = [path.stem for path in (HERE / "targets").glob("*.cpp")]
    assert [name for name in (*compiled, *TARGETS) if not any((HERE / "corpus" / name).glob("*"))] == []
