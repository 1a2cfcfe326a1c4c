"""train, export and eval: missing extras are named, results have their form."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest

from helpers import without_package
from imkd_edge import Detector


@pytest.mark.parametrize(("verb", "arguments"), [("train", ["tiny"]), ("export", ["{file}", "--out", "x.imkd"])])
def test_a_missing_extra_names_the_pip_install(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str, arguments: list[str]
) -> None:
    real = importlib.import_module

    def without_torch(name: str, *rest: object, **named: object) -> object:
        if name.startswith(("imkd_edge.training", "imkd_edge.quantization")):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(importlib, "import_module", without_torch)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(b"")
    outcome = run(verb, *(argument.format(file=file) for argument in arguments))
    assert outcome.code == 3
    assert outcome.stderr.startswith("error[E0701]")
    assert 'pip install "imkd-edge[train]"' in outcome.stderr


def test_a_missing_module_of_our_own_is_an_incomplete_installation(run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str, *rest: object, **named: object) -> object:
        if not name.startswith("imkd_edge"):
            return real(name, *rest, **named)  # type: ignore[arg-type]
        raise ModuleNotFoundError("No module named 'imkd_edge.training.nosuch'", name="imkd_edge.training.nosuch")

    monkeypatch.setattr(importlib, "import_module", broken)
    outcome = run("train", "tiny")
    assert outcome.code == 3
    assert outcome.stderr.startswith("error[E0701] this installation lacks imkd_edge.training.nosuch")
    assert "--force-reinstall" in outcome.stderr and "imkd-edge[" not in outcome.stderr


def test_train_passes_everything_on_and_prints_the_result(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from imkd_edge.cli import workstation

    calls = []

    def train(config: str, **options: object) -> dict[str, object]:
        calls.append((config, options))
        return {"checkpoint": "checkpoint.pt", "losses": {"total": 0.5, "depth": float("nan")}}

    monkeypatch.setattr(workstation, "_extra", lambda module, extra: SimpleNamespace(train=train))
    outcome = run(
        "train", "tiny", "--data", "synth", "--out", tmp_path, "--seed", "3", "--epochs", "2", "--resume", "--json"
    )
    assert outcome.json == {"checkpoint": "checkpoint.pt", "losses": {"total": 0.5, "depth": None}}
    config, options = calls[0]
    assert config == "tiny"
    assert {key: options[key] for key in ("data", "out", "seed", "epochs", "resume")} == {
        "data": "synth",
        "out": tmp_path,
        "seed": 3,
        "epochs": 2,
        "resume": True,
    }
    assert list(options["progress"]([1, 2])) == [1, 2]  # type: ignore[operator]


def test_a_long_path_leaves_every_name_in_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from imkd_edge.cli import report

    monkeypatch.setenv("COLUMNS", "80")
    report.show_numbers(
        "training", {"checkpoint": "/".join(["folder"] * 40), "losses": {"heatmap": 0.123456, "depth": float("nan")}}
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["losses", "heatmap", "0.1235"] in lines and ["losses", "depth", "nan"] in lines
    assert any(line[:1] == ["checkpoint"] for line in lines)


def test_eval_on_synth_has_the_official_names(run, random_bundle: Path) -> None:
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    result = run("eval", random_bundle, "--data", "synth", "--split", "val", "--limit", "2", "--json").json
    assert (result["dataset"], result["split"], result["frames"]) == ("synth", "val", 2)
    assert {"mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE"} <= set(result["metrics"])
    assert 0 <= result["metrics"]["mAP"] < 0.2  # random weights find next to nothing


def test_eval_on_astyx_has_kitti_names(run, shared_data: Path, tmp_path: Path) -> None:
    from helpers import random_spec, write_random_bundle

    bundle = write_random_bundle(tmp_path / "one.imkd", random_spec(cameras=1))
    outcome = run(
        "eval", bundle, "--data", shared_data / "astyx", "--split", "val", "--limit", "3", "--per-range", "--json"
    )
    result = outcome.json
    assert (result["dataset"], result["split"], result["frames"]) == ("astyx", "val", 3)
    assert {"car_bev_ap40_moderate", "car_3d_ap40_moderate", "car_center_ap_2m", "car_bev_ap40_moderate_0-20m"} <= set(
        result["metrics"]
    )
    assert all(value is None or math.isfinite(value) for value in result["metrics"].values())


def test_ranges_are_refused_where_they_mean_nothing(run, random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "infer", lambda *arguments: pytest.fail("a frame ran first"))
    outcome = run("eval", random_bundle, "--data", "synth", "--limit", "1", "--per-range")
    assert outcome.code == 2 and outcome.stderr.startswith("error[E0104]")


def test_eval_without_the_devkit_says_so_before_any_frame_runs(
    run, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Detector, "infer", lambda *arguments: pytest.fail("a frame ran first"))
    without_package(monkeypatch, "nuscenes")
    outcome = run("eval", random_bundle, "--data", "synth", "--limit", "1")
    assert outcome.code == 3 and outcome.stderr.startswith("error[E0701]") and "nuscenes-devkit" in outcome.stderr


def test_eval_without_labels_says_so(run, random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    from dataclasses import replace

    from imkd_edge.sources.synth import SynthSource

    labelled = SynthSource.__getitem__
    monkeypatch.setattr(SynthSource, "__getitem__", lambda self, name: replace(labelled(self, name), truth=None))
    outcome = run("eval", random_bundle, "--data", "synth", "--limit", "1")
    assert outcome.code == 2 and outcome.stderr.startswith("error[E0604]")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["astyx", "--ablation", "--epochs", "3", "--seed", "1"], "--epochs, --seed"),
        (["astyx", "--ablation", "--split", "val", "--cache", "c", "--device", "cpu"], "--split, --cache, --device"),
        (["tiny", "--row", "all"], "--row"),
        (["tiny", "--seeds", "0,1"], "--seeds"),
    ],
)
def test_options_that_would_be_ignored_are_refused(run, tmp_path: Path, arguments: list[str], named: str) -> None:
    outcome = run("train", *arguments, "--out", str(tmp_path / "out"))
    assert outcome.code == 2 and f"/ {named} /" in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("gate", "error", "told"), [((), 0.06, True), ((), 0.04, False), (("--gate", "0.1"), 0.06, False)]
)
def test_a_quantized_form_that_differs_much_brings_advice(
    run, monkeypatch: pytest.MonkeyPatch, gate: tuple[str, ...], error: float, told: bool
) -> None:
    from types import SimpleNamespace

    from imkd_edge.calibration.solvers import Method
    from imkd_edge.cli import workstation

    made = SimpleNamespace(
        Method=Method, LARGE_ERROR=0.05, quantize=lambda *_, **__: {"error": {"camera": 0.01, "bev": error}}
    )
    monkeypatch.setattr(workstation, "_extra", lambda module, extra: made)
    outcome = run("quantize", "tiny", "--data", "synth", "--out", "x.imkd", *gate)
    assert outcome.code == 0 and ("--gate 0.02" in outcome.stderr) == told


@pytest.mark.parametrize("ignored", [("--threads", "3"), ("--device", "cuda"), ("--engine", "tensorrt")])
def test_what_measuring_a_checkpoint_would_ignore_is_refused(run, ignored: tuple[str, str]) -> None:
    outcome = run("eval", "run/checkpoint.pt", "--data", "synth", *ignored)
    assert outcome.code == 2 and ignored[0] in outcome.stderr
