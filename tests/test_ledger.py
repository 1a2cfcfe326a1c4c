"""The ledger of skips: a reason that is not listed is found, in Python's tests and in the C++ tests."""

from __future__ import annotations

import re
from pathlib import Path

import ledger
import pytest

CTEST = """<?xml version="1.0"?>
<testsuite name="Linux-c++" tests="3" failures="0" disabled="0" skipped="2">
  <testcase name="Engine.tensorrt" classname="Engine.tensorrt" time="0.1" status="notrun">
    <skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>
    <system-out>[ RUN      ] Engine.tensorrt
/a/test_engine.cpp:41: Skipped
{reason}


[  SKIPPED ] Engine.tensorrt (0 ms)
</system-out>
  </testcase>
  <testcase name="CAbi" classname="CAbi" time="0" status="run"><system-out>fine</system-out></testcase>
</testsuite>
"""


def test_every_pattern_is_one_and_says_what_did_not_run() -> None:
    for pattern, text in ledger.read("skips.toml").items():
        assert re.compile(pattern) and text


def test_reasons_are_sorted_by_what_did_not_run() -> None:
    kinds, unlisted = ledger.kinds([("b", "no nvcc: nothing"), ("a", "no nvcc: nothing"), ("c", "it was late")])
    assert list(kinds.values()) == [["a", "b"]] and unlisted == ["c: it was late"]


@pytest.mark.parametrize(
    ("reason", "listed"), [("built without TensorRT's headers: see test_trt", True), ("it was late", False)]
)
def test_a_cpp_test_is_skipped_for_a_listed_reason_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str, listed: bool
) -> None:
    path = tmp_path / "ctest.xml"
    path.write_text(CTEST.format(reason=reason))
    assert ledger.of_ctest(path) == [(f"{tmp_path.name}/Engine.tensorrt", reason)]
    assert ledger.main("ledger", str(path)) == (0 if listed else 1)
    assert ledger.main("report", str(path)) == 0
    assert (ledger.UNLISTED in capsys.readouterr().out) == (not listed)


def test_a_file_over_its_budget_is_named() -> None:
    assert ledger.beyond({"tests/a.py": 10_000.0, "tests/b.py": 0.1}) == [
        f"tests/a.py: 10000 s, budget {ledger.read('budget.toml')['other_files']:.0f} s"
    ]
