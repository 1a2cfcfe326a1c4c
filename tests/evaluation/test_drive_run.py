"""A bundle on a drive folder and on a Source object: the numbers of the data set that the folder was made of."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import Once

from imkd_edge.errors import Error
from imkd_edge.evaluation.run import evaluate_bundle
from imkd_edge.options import ConvertOptions, EvalOptions, RunOptions
from imkd_edge.sources import Sample, Source, open_source
from imkd_edge.sources.convert import convert

SYNTH = {"scenes": 2, "frames_per_scene": 3}
RUN = RunOptions(threads=1)
ALL = EvalOptions(split="all")


@pytest.fixture
def drive(once: Once, tmp_path: Path) -> Path:
    """A drive folder of six synthetic frames, which a test may change."""
    made = once("eval-drive", lambda folder: convert("synth", folder / "drive", source_options=SYNTH)) / "drive"
    return Path(shutil.copytree(made, tmp_path / "drive"))


class Own(Source):
    """A user's source: another one's frames."""

    kind = "own"

    def __init__(self, source: Source, traffic: str = "") -> None:
        self.source, self.traffic, self.names = source, traffic, source.names

    def __getitem__(self, name: str) -> Sample:
        return self.source[name]


def change_frames(drive: Path, change) -> None:
    lines = [json.loads(line) for line in (drive / "frames.jsonl").read_text().splitlines()]
    change(lines)
    (drive / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def set_traffic(drive: Path, side: str) -> None:
    path = drive / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "traffic": side}))


def test_a_folder_and_a_source_have_the_numbers_of_their_data_set(drive: Path) -> None:
    folder = evaluate_bundle("tiny", str(drive), ALL, run=RUN)
    assert (folder["dataset"], folder["protocol"], folder["frames"], folder["unlabelled"]) == (
        "folder",
        "classes",
        6,
        0,
    )
    assert folder["metrics"]["mAP"] > 0.5 and folder["metrics"]["car_bev_ap40_iou50"] > 30
    assert folder["classes"]["car"]["objects"] == folder["metrics"]["car_objects"] > 10 and folder["warnings"] == []
    opened = open_source(drive, lidar=False)
    own = evaluate_bundle("tiny", Own(opened), ALL, run=RUN)
    assert own["dataset"] == "own" and own["protocol"] == "classes"
    for result in (own, evaluate_bundle("tiny", opened, ALL, run=RUN)):
        np.testing.assert_equal(result["metrics"], folder["metrics"])


def test_nuscenes_metrics_of_a_folder_are_those_of_its_data_set(drive: Path) -> None:
    options = EvalOptions(split="all", protocol="nuscenes")
    folder = evaluate_bundle("tiny", str(drive), options, run=RUN)["metrics"]
    synth = evaluate_bundle("tiny", "synth", ALL, source_options=SYNTH, run=RUN)
    assert synth["protocol"] == "nuscenes" and folder.keys() == synth["metrics"].keys()
    # the folder counts the returns in each box, the world knows which object each return is of
    for key in ("mAP", "NDS", "car_AP"):
        assert folder[key] == pytest.approx(synth["metrics"][key], abs=0.02)


def test_kittis_metrics_of_a_folder_are_those_of_its_data_set(shared_data: Path, tmp_path: Path) -> None:
    options = ConvertOptions(split="val", limit=5)
    convert(str(shared_data / "astyx"), tmp_path / "drive", options, source_options={"lidar": False})
    ask = EvalOptions(split="val", protocol="kitti", per_range=True)
    folder = evaluate_bundle("astyx-lite", str(tmp_path / "drive"), ask, run=RUN)
    astyx = evaluate_bundle("astyx-lite", str(shared_data / "astyx"), EvalOptions(limit=5, per_range=True), run=RUN)
    assert folder["protocol"] == astyx["protocol"] == "kitti" and folder["metrics"]["car_objects_hard"] > 5
    np.testing.assert_equal(folder["metrics"], astyx["metrics"])


def test_frames_without_labels_are_run_counted_and_reported(drive: Path) -> None:
    def unlabel(lines: list[dict]) -> None:
        del lines[1]["objects"], lines[4]["objects"]

    change_frames(drive, unlabel)
    with pytest.warns(UserWarning, match="2 of 6 frames have no labels"):
        result = evaluate_bundle("tiny", str(drive), ALL, run=RUN)
    assert (result["frames"], result["unlabelled"]) == (4, 2)

    def unlabel_all(lines: list[dict]) -> None:
        for line in lines:
            line.pop("objects", None)

    change_frames(drive, unlabel_all)
    with pytest.raises(Error, match=r"E0604.*no frame has labels"):
        evaluate_bundle("tiny", str(drive), EvalOptions(split="all", limit=2), run=RUN)


def test_a_class_that_the_model_lacks_is_reported(drive: Path) -> None:
    def rename(lines: list[dict]) -> None:
        for item in (item for line in lines for item in line["objects"]):
            item["label"] = {"car": "forklift"}.get(item["label"], item["label"])

    change_frames(drive, rename)
    path = drive / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": []}))
    with pytest.warns(UserWarning) as caught:
        result = evaluate_bundle("tiny", str(drive), ALL, run=RUN)
    texts = [str(item.message) for item in caught]
    assert any("no class for forklift (" in text for text in texts)
    assert any("labelled as car (" in text for text in texts)
    assert result["unlearned_labels"]["forklift"] > 10 and result["unlabelled_classes"]["car"] > 10
    assert "car" not in result["classes"] and not any(key.startswith("car_") for key in result["metrics"])


# ---- the side of traffic ----
@pytest.mark.parametrize("side", ["left", "right", ""])
def test_traffic_on_the_other_side_than_in_training_is_a_warning(drive: Path, side: str) -> None:
    """tiny was trained where traffic keeps to the right."""
    set_traffic(drive, side or "right")
    options = EvalOptions(split="all", limit=1)
    source = open_source("synth", **SYNTH)
    for data in (str(drive), Own(source, side)) if side else (Own(source),):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = evaluate_bundle("tiny", data, options, run=RUN)
        codes = [entry["code"] for entry in result["warnings"]]
        assert codes == (["W0141"] if side == "left" else [])
        assert any(str(item.message).startswith("W0141") for item in caught) == (side == "left")


@pytest.mark.parametrize(("kind", "folder"), [("astyx", "astyx"), ("vod", "vod")])
def test_data_sets_know_their_side(kind: str, folder: str) -> None:
    from imkd_edge.sources.astyx import AstyxSource
    from imkd_edge.sources.vod.reader import VodSource

    assert {"astyx": AstyxSource, "vod": VodSource}[kind].traffic == "right"


# ---- on the command line ----
def test_the_tables_fit_100_columns_and_the_json_has_numbers(
    drive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from imkd_edge.cli import app

    monkeypatch.setenv("COLUMNS", "100")
    arguments = ["eval", "tiny", "--data", str(drive), "--split", "all", "--threads", "1", "--per-range"]
    text = CliRunner().invoke(app, arguments)
    assert text.exit_code == 0, text.stderr
    assert max(len(line.rstrip()) for line in text.stdout.splitlines()) <= 100
    assert not any("…" in line for line in text.stdout.splitlines())
    rows = [line.split() for line in text.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0].endswith(("m", "m-"))][:3] == ["0-20m", "20-40m", "40m-"]
    result = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    metrics = result["metrics"]
    row = next(row for row in rows if row[:2] == ["car", "all"])
    assert row[2:] == [str(metrics["car_objects"]), *(f"{metrics[f'car_{key}']:.3f}" for key in
                                                      ("ap_0.5m", "ap_1m", "ap_2m", "ap_4m", "AP"))]  # fmt: skip
    assert {"mAP", "car_ap_2m_20-40m", "car_3d_ap40_iou50_0-20m", "car_ATE"} <= set(metrics)
    assert all(value is None or isinstance(value, (int, float)) for value in metrics.values())
