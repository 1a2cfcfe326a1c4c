"""inspect and doctor; bench with measured and predicted times."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers import random_spec, write_random_bundle
from imkd_edge.bench.frames import percentiles
from imkd_edge.bundle import PARTS, Bundle, write_bundle
from imkd_edge.bundle import format as bundle_format
from imkd_edge.checks import doctor
from imkd_edge.cli.report import heading

PERCENTILES = ["p50", "p90", "p99", "p99.9", "max"]
STAGES = ["preprocess", "camera", "lift", "radar", "warp", "bev", "decode"]


def test_inspect_prints_the_manifest_as_json(run, random_bundle: Path) -> None:
    card = run("inspect", random_bundle, "--json").json
    manifest = json.loads((random_bundle / "manifest.json").read_text())
    assert {key: card[key] for key in manifest} == manifest
    assert Path(card["path"]) == random_bundle


def test_inspect_prints_sizes_classes_files_and_origin(run, random_bundle: Path) -> None:
    text = run("inspect", random_bundle).text
    for word in ("6 of 128 × 64 px", "64 × 64", "car, pedestrian", "camera.onnx", "none: random weights"):
        assert word in text


def test_names_in_the_form_of_markup_are_printed_verbatim(run, tmp_path: Path) -> None:
    spec = random_spec()
    spec.name = "v2 [/b]"
    spec.head.classes[0].name = "car [/red]"
    bundle = write_random_bundle(tmp_path / "m.imkd", spec)
    text = run("inspect", bundle).text
    assert "v2 [/b]" in text and "car [/red]" in text
    for arguments in (["--frame", "0"], ["--frames", "0-1"]):  # printed as a table; as one line per frame
        assert "car [/red]" in run("infer", "synth", "--bundle", bundle, *arguments, "--score", "0.01").stdout


@pytest.mark.parametrize(
    "metrics", [{"metrics": {"mAP": 0.25}}, {"metrics": 0.25}, {"int8": {"mAP": 0.25}}, {"mAP": 0.25}], ids=str
)
def test_inspect_shows_metrics_of_any_form(run, random_bundle: Path, tmp_path: Path, metrics: dict) -> None:
    shutil.copytree(random_bundle, tmp_path / "m.imkd")
    manifest = json.loads((random_bundle / "manifest.json").read_text())
    (tmp_path / "m.imkd" / "manifest.json").write_text(json.dumps({**manifest, "metrics": metrics}))
    assert "0.25" in run("inspect", tmp_path / "m.imkd").text


def test_inspect_prints_parameters_and_gflops_of_each_part(run, random_bundle: Path, tmp_path: Path) -> None:
    loaded = Bundle.load(random_bundle)
    parts = {"camera.onnx": {"parameters": 12_345_678, "gflops": 91.234}}
    models = [loaded.file(f"{part}.onnx").read_bytes() for part in PARTS]
    bundle = tmp_path / "m.imkd"
    write_bundle(bundle, loaded.spec, *models, {}, {}, {"parts": parts})
    assert run("inspect", bundle, "--json").json["provenance"]["parts"] == parts
    row = next(line for line in run("inspect", bundle).stdout.splitlines() if "camera.onnx" in line)
    assert "12.346" in row and "91.23" in row


@pytest.mark.parametrize("parts", [[], "none", {"camera.onnx": None}, {"camera.onnx": {"parameters": "many"}}])
def test_inspect_leaves_malformed_costs_out(run, random_bundle: Path, tmp_path: Path, parts) -> None:
    loaded = Bundle.load(random_bundle)
    models = [loaded.file(f"{part}.onnx").read_bytes() for part in PARTS]
    write_bundle(tmp_path / "m.imkd", loaded.spec, *models, {}, {}, {"parts": parts})
    assert "camera.onnx" in run("inspect", tmp_path / "m.imkd").text


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, random_bundle: Path) -> Path:
    """A package that ships the random bundle as `tiny`."""
    monkeypatch.setattr(bundle_format, "SHIPPED", tmp_path)
    shutil.copytree(random_bundle, tmp_path / "tiny.imkd")
    return tmp_path / "tiny.imkd"


def test_doctor_passes_a_complete_installation(run, shipped: Path) -> None:
    outcome = run("doctor", "--json")
    checks = {check["name"]: check for check in outcome.json["checks"]}
    machine = {"python", "core", "onnxruntime", "cuda", "engine torch (GPU)", "threads", "sensor data"}
    assert set(checks) >= machine | {"bundle tiny", "golden tiny"}
    assert not [check for check in checks.values() if check["status"] == "fail"]
    assert all(check["fix"] for check in checks.values() if check["status"] == "warn")
    assert outcome.code == 0


def test_doctor_fails_for_a_changed_byte_and_prints_a_fix(run, shipped: Path) -> None:
    with open(shipped / "camera.onnx", "ab") as file:
        file.write(b"x")
    outcome = run("doctor", "--json")
    checks = {check["name"]: check for check in outcome.json["checks"]}
    assert checks["bundle tiny"]["status"] == "fail" and "E0407" in checks["bundle tiny"]["detail"]
    assert checks["bundle tiny"]["fix"]
    assert outcome.json["status"] == "fail" and outcome.code == 3


def test_doctor_fails_without_a_shipped_bundle(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundle_format, "SHIPPED", tmp_path)
    outcome = run("doctor")
    assert outcome.code == 3 and "no bundle is shipped" in outcome.text


def test_exception_in_a_check_is_a_failed_check(run, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.CHECKS, "threads", lambda: 1 / 0)
    outcome = run("doctor", "--json")
    checks = {check["name"]: check for check in outcome.json["checks"]}
    assert checks["threads"]["status"] == "fail" and "ZeroDivisionError" in checks["threads"]["detail"]
    assert outcome.code == 3


def test_doctor_prints_a_dash_for_what_is_optional_and_absent(run, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = {
        "there": doctor.Check("there", doctor.OK, "works"),
        "absent": doctor.Check("absent", doctor.OK, "not installed", "pip install it"),
        "limited": doctor.Check("limited", doctor.WARN, "slow", "buy another"),
    }
    monkeypatch.setattr(doctor, "CHECKS", {name: lambda check=check: check for name, check in checks.items()})
    rows = [words for line in run("doctor").stdout.splitlines() if len(words := line.split()) > 1]
    assert {row[1]: row[0] for row in rows if row[1] in checks} == {"there": "ok", "absent": "–", "limited": "warn"}
    assert any(row[:3] == ["to", "have", "it:"] for row in rows) and any(row[0] == "fix:" for row in rows)


def test_headings_are_whole_degrees_from_minus_179_to_180() -> None:
    degrees = {0.0: 0, -1e-3: 0, math.pi: 180, -math.pi: 180, -3.13: -179, 1.57: 90}
    assert {yaw: heading(yaw) for yaw in degrees} == degrees


def test_bench_prints_percentiles_of_the_total_and_of_every_stage(run, random_bundle: Path) -> None:
    result = run("bench", random_bundle, "--frames", "12", "--warmup", "2", "--threads", "1", "--json").json
    assert (result["frames"], result["threads"]) == (12, 1)
    assert (result["engine"], result["device"]) == ("onnxruntime", "cpu")
    assert list(result["stages_ms"]) == STAGES
    for name, values in {"total": result["total_ms"], **result["stages_ms"]}.items():
        assert list(values) == PERCENTILES
        times = list(values.values())
        assert times == sorted(times)
        assert times[-1] == 0 if name == "warp" else times[0] > 0  # no warp: this bundle has no past frames
    assert 0 < result["share_outside_networks"] < 1
    assert result["total_ms"]["p50"] >= max(stage["p50"] for stage in result["stages_ms"].values())
    assert {"cpu", "cores", "python", "onnxruntime", "numpy"} <= set(result["environment"])


def test_percentiles_are_observed_values() -> None:
    values = [float(value) for value in range(1, 1001)]
    assert percentiles(values) == {"p50": 501.0, "p90": 901.0, "p99": 991.0, "p99.9": 1000.0, "max": 1000.0}


@pytest.mark.parametrize("device", ["orin-agx-64", "orin-nx-16", "orin-nano-8", "thor"])
def test_prediction_is_the_sum_of_its_stages_and_is_marked_as_predicted(run: Any, device: str) -> None:
    result = run("bench", "tiny", "--predict", device, "--json").json
    assert result["predicted"] is True and set(result["stages_ms"]) == set(STAGES)
    assert result["total_ms"] == pytest.approx(sum(stage["ms"] for stage in result["stages_ms"].values()))
    for part, layers in result["layers"].items():
        assert sum(layer["us"] for layer in layers) == pytest.approx(1e3 * result["stages_ms"][part]["ms"])
    text = run("bench", "tiny", "--predict", device).text
    assert "PREDICTED, not measured" in text and "us between kernels" in text


def test_unknown_device_or_precision_of_a_prediction_is_refused(run: Any) -> None:
    outcome = run("bench", "tiny", "--predict", "xavier")
    assert outcome.code == 3 and "E0511" in outcome.stderr and "orin-agx-64" in outcome.stderr
    outcome = run("bench", "tiny", "--predict", "thor", "--precision", "fp4")
    assert outcome.code == 2 and "auto, fp16, int8" in outcome.stderr
