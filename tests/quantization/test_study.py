"""The study: rows of several trained seeds, paired; resumed; with training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from imkd_edge.calibration.solvers import Method
from imkd_edge.errors import Error
from imkd_edge.quantization import study


def run_of(
    row: str, seed: int, bev: float, bits: int | None = None, draws: list[float] | None = None
) -> dict[str, Any]:
    metric = "car_bev_ap40_moderate"
    return {
        "row": row,
        "seed": seed,
        **({"bits": bits} if bits else {}),
        "metrics": {metric: bev},
        "bootstrap": {metric: draws or [bev] * 4},
    }


def test_seeds_are_paired_and_frames_are_drawn_together() -> None:
    runs = [
        run_of("float", 0, 40.0),
        run_of("max, 8 bits", 0, 30.0, 8),
        run_of("fisher, 8 bits", 0, 38.0, 8, [36.0, 38.0, 38.0, 40.0]),
        run_of("float", 1, 20.0),
        run_of("max, 8 bits", 1, 16.0, 8),
        run_of("fisher, 8 bits", 1, 20.0, 8, [20.0] * 4),
    ]
    tables = study.summaries(runs)
    assert list(tables) == ["float", "fisher, 8 bits"]
    rows = {row["row"]: row["metrics"]["car_bev_ap40_moderate"] for row in tables["float"]}
    assert rows["float"]["mean"] == 30 and rows["float"]["sem"] == 10  # sd of 40 and 20 is 20 / sqrt 2
    assert rows["max, 8 bits"]["gain"] == -7 and rows["max, 8 bits"]["gain_sem"] == pytest.approx(3)  # -10 and -4
    assert rows["fisher, 8 bits"]["gain"] == -1 and rows["fisher, 8 bits"]["gain_sem"] == pytest.approx(1)  # -2 and 0
    # Means of both seeds: -2, -1, -1, 0.
    assert -2 <= rows["fisher, 8 bits"]["gain_low"] < -1 < rows["fisher, 8 bits"]["gain_high"] <= 0
    against = {row["row"]: row["metrics"]["car_bev_ap40_moderate"]["gain"] for row in tables["fisher, 8 bits"]}
    assert list(against) == ["fisher, 8 bits", "max, 8 bits"] and against["max, 8 bits"] == -6


def test_rows_have_names_that_say_all() -> None:
    names = [study.label(method) for method in study.methods([8, 6])]
    assert len(set(names)) == len(names) == 12
    assert (
        study.label(Method("percentile", 6)) == "percentile 99.99, 6 bits" and study.label(Method()) == "fisher, 8 bits"
    )
    assert [m.name for m in study.methods([8], ["mse", "fisher"])] == ["mse", "fisher", "fisher"]


def test_two_seeds_from_the_command_and_no_row_is_measured_twice(
    tmp_path: Path, few_real: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On four real frames; one model twice stands for two seeds."""
    evaluated: list[str] = []
    real = study.evaluate_bundle
    monkeypatch.setattr(
        study, "evaluate_bundle", lambda bundle, *a, **k: (evaluated.append(bundle), real(bundle, *a, **k))[1]
    )
    monkeypatch.setattr(study.kitti, "RESAMPLES", 5)
    common = ["--data", str(few_real), "--limit", "4", "--bits", "8", "--frames", "16", "--threads", "1"]
    files = ["--state", str(tmp_path / "s"), "--out", str(tmp_path / "r.json")]
    command = ["astyx-lite", "astyx-lite", *common, "--methods", "mse", *files]
    study.main(command)
    result = json.loads((tmp_path / "r.json").read_text())
    rows = [(row, seed) for seed in (0, 1) for row in ("float", "mse, 8 bits")]
    assert [(run["row"], run["seed"]) for run in result["runs"]] == rows
    first, second = (run for run in result["runs"] if run["row"] == "mse, 8 bits")
    assert first["metrics"].keys() == second["metrics"].keys() and first["int8_share"] > 0.95
    assert "car_bev_ap40_moderate_no_radar" in first["metrics"]
    assert len(first["bootstrap"]["car_bev_ap40_moderate"]) == 5
    row = next(row for row in result["summary"]["float"] if row["row"] == "mse, 8 bits")
    assert row["seeds"] == [0, 1] and row["metrics"]["car_bev_ap40_moderate"]["gain_sem"] == 0  # the same model twice
    evaluated.clear()
    study.main(command)
    assert evaluated == []
    assert json.loads((tmp_path / "r.json").read_text()) == result
    for other in (["--frames", "32"], ["--calibration-split", "val"]):
        with pytest.raises(Error, match="other"):
            study.main(command + other)
    assert json.loads((tmp_path / "r.json").read_text()) == result


def test_training_is_a_row(tmp_path: Path) -> None:
    """With one seed no standard error has a value; the file is strict JSON all the same, and is resumed."""
    out = tmp_path / "r.json"
    command = f"tiny --data synth --option scenes=2 --option frames_per_scene=9 --split all --out {out}"
    command += f" --state {tmp_path / 's'}"
    command += " --frames 16 --limit 2 --threads 1 --bits 6 --methods percentile --qat 1 --refine 2"
    study.main(command.split())
    first = out.read_text()
    runs = json.loads(first, parse_constant=pytest.fail)["runs"]
    assert [run["row"] for run in runs] == [
        "float",
        *(f"percentile {p}, 6 bits" for p in (99.9, 99.99)),
        "fisher, refined, 6 bits",
        "fisher, trained, 6 bits",
    ]
    assert [(run["training"]["steps"], run["training"]["weights"]) for run in runs[3:]] == [(2, False), (1, True)]
    assert all(math.isfinite(run["metrics"]["NDS"]) and run["bootstrap"] == {} for run in runs)
    study.main(command.split())
    assert out.read_text() == first


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_result_file_is_named_and_kept(tmp_path: Path, content: str) -> None:
    out = tmp_path / "r.json"
    out.write_text(content)
    with pytest.raises(Error, match=r"r\.json"):
        study.main(["tiny", "--data", "synth", "--out", str(out), "--state", str(tmp_path / "s")])
    assert out.read_text() == content
