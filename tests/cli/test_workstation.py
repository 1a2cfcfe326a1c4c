"""train, export, quantize and eval: missing packages, ignored options, and the form of results."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import random_spec, without_package, write_random_bundle
from imkd_edge import Bundle, Detector
from imkd_edge.bundle.golden import read_golden
from imkd_edge.cli import report, workstation
from imkd_edge.options import TrainOptions
from imkd_edge.progress import Track
from imkd_edge.sources.synth import SynthSource


@pytest.mark.parametrize(("verb", "arguments"), [("train", ["tiny"]), ("export", ["{file}", "--out", "x.imkd"])])
def test_error_of_a_missing_extra_has_the_pip_command(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str, arguments: list[str]
) -> None:
    import_module = importlib.import_module

    def without_torch(name: str, package: str | None = None) -> object:
        if name.startswith(("imkd_edge.training", "imkd_edge.quantization")):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return import_module(name, package)

    monkeypatch.setattr(importlib, "import_module", without_torch)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(b"")
    outcome = run(verb, *(argument.format(file=file) for argument in arguments))
    assert outcome.code == 3
    assert outcome.stderr.startswith("error[E0701]")
    assert 'pip install "imkd-edge[train]"' in outcome.stderr


def test_missing_module_of_imkd_edge_is_an_incomplete_installation(run, monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = importlib.import_module

    def broken(name: str, package: str | None = None) -> object:
        if not name.startswith("imkd_edge"):
            return import_module(name, package)
        raise ModuleNotFoundError("No module named 'imkd_edge.training.nosuch'", name="imkd_edge.training.nosuch")

    monkeypatch.setattr(importlib, "import_module", broken)
    outcome = run("train", "tiny")
    assert outcome.code == 3
    assert outcome.stderr.startswith("error[E0701] this installation lacks imkd_edge.training.nosuch")
    assert "--force-reinstall" in outcome.stderr and "imkd-edge[" not in outcome.stderr


def test_train_passes_its_options_on_and_prints_the_result(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def train(config: str, options: TrainOptions, *, source_options, progress: Track, monitor) -> dict[str, object]:
        calls.append((config, options, source_options, progress))
        monitor.log("a line of the log")
        return {"checkpoint": "checkpoint.pt", "losses": {"total": 0.5, "depth": float("nan")}}

    monkeypatch.setattr(workstation, "_extra", lambda module, extra: SimpleNamespace(train=train))
    outcome = run(
        "train", "tiny", "--data", "synth", "--out", tmp_path, "--seed", "3", "--epochs", "2", "--resume", "--json",
        "--from", "tiny", "--set", "train.rate=1e-3", "--set", "name=mine", "--limit", "50", "--threads", "2",
        "--option", "scenes=4",
    )  # fmt: skip
    assert outcome.json == {"checkpoint": "checkpoint.pt", "losses": {"total": 0.5, "depth": None}}
    [(config, options, source_options, progress)] = calls
    assert config == "tiny" and source_options == {"scenes": 4}
    expected = {"start": "tiny", "changes": ("train.rate=1e-3", "name=mine"), "limit": 50, "threads": 2}
    assert options == TrainOptions(data="synth", out=tmp_path, seed=3, epochs=2, resume=True, **expected)
    assert "a line of the log" in outcome.stderr
    assert list(progress([1, 2])) == [1, 2]


def test_train_passes_a_plans_options_on(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def ablate(plan, out, rows, seeds, teacher, progress, log) -> dict[str, object]:
        calls.append((plan, out, rows, seeds, teacher))
        log("a line of the log")
        assert list(progress([1, 2])) == [1, 2]
        return {"runs": [1, 2, 3]}

    module = SimpleNamespace(
        load_plan=lambda name, data: (name, data), ablate=ablate, report=lambda results, out: ["row"]
    )
    monkeypatch.setattr(workstation, "_extra", lambda name, extra: module)
    options = ("--data", "synth", "--out", tmp_path, "--teacher", "t", "--row", "a", "--row", "b", "--seeds", "0,1")
    outcome = run("train", "astyx", "--ablation", *options, "--json")
    assert outcome.json == {"out": str(tmp_path), "finished": 3, "rows": ["row"]}
    assert calls == [(("astyx", "synth"), tmp_path, ["a", "b"], [0, 1], Path("t"))]
    assert "a line of the log" in outcome.stderr


def test_long_path_does_not_cut_the_names_of_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    report.show_numbers(
        "training", {"checkpoint": "/".join(["folder"] * 40), "losses": {"heatmap": 0.123456, "depth": float("nan")}}
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["losses", "heatmap", "0.1235"] in lines and ["losses", "depth", "nan"] in lines
    assert any(line[:1] == ["checkpoint"] for line in lines)


def test_eval_on_synth_has_the_metrics_of_nuscenes(run, random_bundle: Path) -> None:
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    result = run("eval", random_bundle, "--data", "synth", "--split", "val", "--limit", "2", "--json").json
    assert (result["dataset"], result["split"], result["frames"]) == ("synth", "val", 2)
    assert {"mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE"} <= set(result["metrics"])
    assert 0 <= result["metrics"]["mAP"] < 0.2  # random weights


def test_eval_on_astyx_has_the_metrics_of_kitti(run, shared_data: Path, tmp_path: Path) -> None:
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


def test_per_range_is_refused_outside_astyx(run, random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "infer", lambda *arguments: pytest.fail("a frame ran before the check"))
    outcome = run("eval", random_bundle, "--data", "synth", "--limit", "1", "--per-range")
    assert outcome.code == 2 and outcome.stderr.startswith("error[E0104]")


def test_eval_without_the_devkit_fails_before_the_first_frame(
    run, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Detector, "infer", lambda *arguments: pytest.fail("a frame ran before the check"))
    without_package(monkeypatch, "nuscenes")
    outcome = run("eval", random_bundle, "--data", "synth", "--limit", "1")
    assert outcome.code == 3 and outcome.stderr.startswith("error[E0701]") and "nuscenes-devkit" in outcome.stderr


def test_eval_of_frames_without_labels_is_refused(run, random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    labelled = SynthSource.__getitem__
    monkeypatch.setattr(SynthSource, "__getitem__", lambda self, name: replace(labelled(self, name), truth=None))
    outcome = run("eval", random_bundle, "--data", "synth", "--limit", "1")
    assert outcome.code == 2 and outcome.stderr.startswith("error[E0604]")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["astyx", "--ablation", "--epochs", "3", "--seed", "1"], "--seed, --epochs"),
        (["astyx", "--ablation", "--split", "val", "--cache", "c", "--device", "cpu"], "--split, --cache, --device"),
        (["tiny", "--row", "all"], "--row"),
        (["tiny", "--seeds", "0,1"], "--seeds"),
    ],
)
def test_options_that_would_be_ignored_are_refused(run, tmp_path: Path, arguments: list[str], names: str) -> None:
    outcome = run("train", *arguments, "--out", str(tmp_path / "out"))
    assert outcome.code == 2 and f"/ {names} /" in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("accepted", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_of_quantize_is_that_of_its_gate(
    run, monkeypatch: pytest.MonkeyPatch, accepted: bool, code: int
) -> None:
    module = SimpleNamespace(quantize=lambda *_, **__: {"accepted": accepted})
    monkeypatch.setattr(workstation, "_extra", lambda name, extra: module)
    assert run("quantize", "tiny", "--data", "synth", "--out", "x.imkd", "--json").code == code


@pytest.mark.parametrize("ignored", [("--trust", "keys"), ("--device", "cuda"), ("--engine", "tensorrt")])
def test_eval_of_a_checkpoint_refuses_options_that_it_would_ignore(run, ignored: tuple[str, str]) -> None:
    outcome = run("eval", "run/checkpoint.pt", "--data", "synth", *ignored)
    assert outcome.code == 2 and ignored[0] in outcome.stderr


def test_eval_of_a_checkpoint_takes_as_many_threads_as_it_is_given(run, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    result = {"split": "val", "frames": 1, "unlabelled": 0, "protocol": "classes", "metrics": {}}
    module = SimpleNamespace(evaluate_checkpoint=lambda *_, **options: given.update(options) or result)
    monkeypatch.setattr(workstation, "_extra", lambda name, extra: module)
    assert run("eval", "run/checkpoint.pt", "--data", "synth", "--threads", "3", "--json").code == 0
    assert given["threads"] == 3


def test_eval_takes_the_folder_of_a_run_for_its_checkpoint(run, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    outcome = run("eval", tmp_path, "--data", "synth", "--device", "cuda")
    assert outcome.code == 2 and "a checkpoint runs in torch" in outcome.stderr


def test_export_writes_a_bundle_for_more_cameras_and_refuses_what_it_would_ignore(run, tmp_path: Path) -> None:
    outcome = run("export", "tiny", "--cameras", 8, "--out", tmp_path / "m.imkd", "--json")
    assert outcome.code == 0 and json.loads(outcome.stdout)["cameras"] == 8
    outcome = run("export", "tiny", "--cameras", 8, "--out", tmp_path / "n.imkd", "--half")
    assert outcome.code == 2 and outcome.stderr.startswith("error[E0104]") and "--half" in outcome.stderr
    outcome = run("export", "tiny", "--out", tmp_path / "n.imkd")
    assert outcome.code != 0 and "--cameras" in outcome.stderr


def test_export_remakes_the_golden_drive(run, tmp_path: Path) -> None:
    """Of a shipped bundle it makes the same again."""
    outcome = run("export", "tiny", "--golden", "synth", "--out", tmp_path / "m.imkd", "--json")
    old, new = Bundle.load("tiny"), Bundle.load(tmp_path / "m.imkd")
    assert outcome.code == 0 and json.loads(outcome.stdout)["cameras"] == 6
    assert new.manifest["files"].keys() == old.manifest["files"].keys() and new.manifest["metrics"]
    for one, other in zip(read_golden(old), read_golden(new), strict=True):
        assert np.array_equal(one.arrays["timestamp_ns"], other.arrays["timestamp_ns"])
        assert np.array_equal(one.arrays["sweep_points"], other.arrays["sweep_points"])
    outcome = run("export", "tiny", "--golden", tmp_path / "no.json", "--out", tmp_path / "n.imkd")
    assert outcome.code != 0 and "no.json" in outcome.stderr and not (tmp_path / "n.imkd").exists()
