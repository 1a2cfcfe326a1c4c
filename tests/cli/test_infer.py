"""infer: selection of frames, JSON lines, pictures, and the error codes of bad input, also of other verbs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers import random_spec, write_random_bundle
from imkd_edge import Detector
from imkd_edge.sources import open_source

STAGES = {"preprocess", "camera", "lift", "radar", "warp", "bev", "decode"}


def test_json_is_one_line_per_frame(run, random_bundle: Path) -> None:
    outcome = run("infer", "synth", "--bundle", random_bundle, "--frame", "s000-f001", "--frame", "s000-f002", "--json")
    assert outcome.code == 0
    first, second = outcome.lines
    assert [first["frame"], second["frame"]] == ["s000-f001", "s000-f002"]
    assert second["timestamp_ns"] - first["timestamp_ns"] == 500_000_000
    assert first["health"]["mode"] == "full"
    assert first["health"]["sensors"]["CAM_FRONT"] == "ok"
    assert set(first["timings_us"]) >= STAGES
    assert first["detections"], "these random weights yield boxes"
    box = first["detections"][0]
    assert set(box) == {"label", "score", "center", "size", "yaw", "velocity"}
    assert box["label"] in ("car", "pedestrian")
    assert [len(box[key]) for key in ("center", "size", "velocity")] == [3, 3, 2]


def test_boxes_equal_those_of_the_detector(run, random_bundle: Path) -> None:
    sample = open_source("synth")["s000-f001"]
    with Detector(random_bundle, rig=sample.rig) as detector:
        result = detector.infer(sample.frames, sample.radar, ego=sample.ego, timestamp_ns=sample.timestamp_ns)
    record = run("infer", "synth", "--bundle", random_bundle, "--frame", "s000-f001", "--json").json
    np.testing.assert_allclose([box["score"] for box in record["detections"]], result.scores, atol=1e-4)
    np.testing.assert_allclose([box["center"] for box in record["detections"]], result.boxes[:, :3], atol=1e-4)


def test_higher_score_discards_boxes(run, random_bundle: Path) -> None:
    low, high = (
        run("infer", "synth", "--bundle", random_bundle, "--frame", "1", "--score", score, "--json").json["detections"]
        for score in (0.2, 0.5)
    )
    assert len(low) > len(high)
    assert all(box["score"] >= 0.5 for box in high)


@pytest.mark.parametrize(
    "verb", [["infer", "synth", "--bundle"], ["eval", "--data", "synth"]], ids=lambda verb: verb[0]
)
@pytest.mark.parametrize("score", ["0", "1", "1.5", "-0.5", "nan"])
def test_score_outside_its_limits_is_refused_by_the_options_name(
    run, random_bundle: Path, verb: list[str], score: str
) -> None:
    outcome = run(*verb, random_bundle, f"--score={score}")
    assert outcome.code == 2 and "--score" in outcome.stderr and "head.score_threshold" not in outcome.stderr


def test_range_of_names_with_dashes(run, random_bundle: Path) -> None:
    outcome = run("infer", "synth", "--bundle", random_bundle, "--frames", "s000-f002-s000-f004", "--json")
    assert [line["frame"] for line in outcome.lines] == ["s000-f002", "s000-f003", "s000-f004"]


def test_limit_takes_the_first_frames(run, random_bundle: Path) -> None:
    outcome = run("infer", "synth", "--bundle", random_bundle, "--split", "val", "--limit", 2, "--json")
    frames = [json.loads(line)["frame"] for line in outcome.stdout.splitlines()]
    assert frames == ["s007-f000", "s007-f001"]


def test_frames_of_a_file(run, random_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("s000-f003\ns000-f001\n")
    outcome = run("infer", "synth", "--bundle", random_bundle, "--frames", tmp_path / "list.txt", "--json")
    assert [line["frame"] for line in outcome.lines] == ["s000-f003", "s000-f001"]


def test_without_json_one_frame_is_a_table_and_several_are_lines(run, random_bundle: Path) -> None:
    one = run("infer", "synth", "--bundle", random_bundle, "--frame", "0")
    assert one.code == 0 and "heading" in one.stdout and "health" in one.stdout
    many = run("infer", "synth", "--bundle", random_bundle, "--frames", "s000-f000-s000-f002")
    assert len(many.stdout.splitlines()) == 3


def test_save_writes_a_picture_and_the_record(run, random_bundle: Path, tmp_path: Path) -> None:
    outcome = run(
        "infer", "synth", "--bundle", random_bundle, "--frame", "s000-f001", "--save", "--out", tmp_path, "--json"
    )
    folder = tmp_path / "s000-f001"
    assert {path.name for path in folder.iterdir()} == {"overview.png", "result.json"}
    assert {path.name for path in tmp_path.iterdir()} == {"s000-f001"}
    assert json.loads((folder / "result.json").read_text()) == outcome.json
    assert cv2.imread(str(folder / "overview.png")).shape[1] > 1000
    assert str(folder / "overview.png") in outcome.stderr.replace("\n", "")


def test_folder_with_other_files_is_not_replaced(run, random_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "s000-f001").mkdir()
    (tmp_path / "s000-f001" / "thesis.txt").write_text("years of work")
    outcome = run("infer", "synth", "--bundle", random_bundle, "--frame", "1", "--save", "--out", tmp_path)
    assert outcome.code == 3 and outcome.stderr.startswith("error[E0702]")
    assert (tmp_path / "s000-f001" / "thesis.txt").read_text() == "years of work"


def test_every_frame_of_a_recording_has_its_own_result(run, random_bundle: Path, tmp_path: Path) -> None:
    names = ["ü", "ä", "_", ".", "..", "..."]
    run("convert", "synth", "--limit", len(names), "--to", tmp_path / "drive")
    lines = [json.loads(line) for line in (tmp_path / "drive/frames.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**line, "frame": name}) + "\n" for line, name in zip(lines, names, strict=True))
    (tmp_path / "drive/frames.jsonl").write_text(text)
    shutil.rmtree(tmp_path / "drive/splits")
    outcome = run("infer", tmp_path / "drive", "--bundle", random_bundle, "--save", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/result.json")]
    assert sorted(record["frame"] for record in records) == sorted(names)
    assert len(list((tmp_path / "out").iterdir())) == len(names)


LONG = "n" * 300  # longer than the 255 bytes of a file's name
BAD = [
    (["infer", LONG], 2, "E0302"),
    (["infer", "synth", "--frames", LONG], 2, "E0307"),
    (["infer", "synth", "--frame", "²"], 2, "E0307"),
    (["infer", "synth", "--option", "scenes=abc"], 2, "E0104"),
    (["infer", "synth", "--option", "rig=abc"], 2, "E0302"),
    (["inspect", LONG], 4, "E0401"),
    (["infer", "nosuchfolder"], 2, "E0302"),
    (["infer", "{empty}"], 2, "E0301"),
    (["infer", "synth:seven"], 2, "E0301"),
    (["infer", "synth", "--frame", "s999-f999"], 2, "E0307"),
    (["infer", "synth", "--frames", "nosuch"], 2, "E0307"),
    (["infer", "synth", "--frames", "s000-f004-s000-f002"], 2, "E0307"),
    (["infer", "synth", "--frames", "s000-f000-s000-f002", "--frame", "3"], 2, "E0104"),
    (["infer", "synth", "--split", "nosuch"], 2, "E0307"),
    (["infer", "synth", "--option", "scenes"], 2, "E0104"),
    (["infer", "synth", "--option", "nosuch=1"], 2, "E0102"),
    (["infer", "synth", "--frame", "0", "--bundle", "nosuch"], 4, "E0401"),
    (["infer", "synth", "--frame", "0", "--engine", "nosuch"], 3, "E0501"),
    (["infer", "synth", "--frame", "0", "--device", "cuda"], 3, "E0511"),
    (["infer", "synth", "--frame", "0", "--theme", "pink", "--save"], 2, "E0104"),
    (["inspect", "nosuch"], 4, "E0401"),
    (["inspect", "{empty}"], 4, "E0406"),
    (["demo", "--source", "nosuchfolder"], 2, "E0302"),
    (["bench", "nosuch"], 4, "E0401"),
    (["export", "nosuch.pt", "--out", "x.imkd"], 2, "E0602"),
    (["eval", "nosuch", "--data", "synth"], 4, "E0401"),
    (["eval", "{bundle}", "--data", "synth", "--split", "nosuch"], 2, "E0307"),
]


@pytest.mark.parametrize(("arguments", "exit_code", "error_code"), BAD, ids=[" ".join(case[0]) for case in BAD])
@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["text", "json"])
def test_bad_input_has_its_code(
    run,
    random_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    exit_code: int,
    error_code: str,
    json_flag: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    command = [argument.format(empty="empty", bundle=random_bundle) for argument in arguments]
    if command[0] in ("infer", "demo") and "--bundle" not in command:
        command += ["--bundle", str(random_bundle)]
    outcome = run(*command, *json_flag)
    assert outcome.stderr.startswith(f"error[{error_code}] ")
    assert outcome.stderr.count("\n") == 1
    assert outcome.stderr.count(" / ") >= 2  # what, where, how to fix
    assert outcome.code == exit_code
    assert outcome.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]  # no partial output


@pytest.mark.parametrize(
    "verb", [["infer"], ["demo", "--source"], ["bench", "tiny", "--source"], ["bench", "tiny", "--ops", "--source"]]
)
def test_recording_without_frames_is_refused(run, tmp_path: Path, verb: list[str]) -> None:
    for name in ("camera_front", "radar_6455"):
        (tmp_path / name).mkdir()
    outcome = run(*verb, tmp_path)
    assert outcome.code == 2 and outcome.stderr.count("\n") == 1
    assert outcome.stderr.startswith("error[E0307] no frames are there")


def test_folder_whose_name_is_not_utf8_is_refused(run, random_bundle: Path, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.imkd")
    shutil.copytree(random_bundle, name)
    outcome = run("inspect", name)
    assert outcome.code == 4 and outcome.stderr.startswith("error[E0408]") and "rename" in outcome.stderr


def test_bundle_with_a_changed_byte_is_refused(run, tmp_path: Path) -> None:
    bundle = write_random_bundle(tmp_path / "b.imkd")
    data = bytearray((bundle / "bev.onnx").read_bytes())
    data[-1] ^= 1
    (bundle / "bev.onnx").write_bytes(data)
    outcome = run("infer", "synth", "--frame", "0", "--bundle", bundle)
    assert outcome.code == 4 and outcome.stderr.startswith("error[E0407]")


def test_rig_with_other_cameras_is_refused(run, tmp_path: Path) -> None:
    bundle = write_random_bundle(tmp_path / "one.imkd", random_spec(cameras=1))
    outcome = run("infer", "synth", "--frame", "0", "--bundle", bundle)
    assert outcome.code == 2 and outcome.stderr.startswith("error[E0218]")
    assert "recordings of the model's rig (--data), or make a bundle" in outcome.stderr


def test_picture_has_the_segmentation_and_with_debug_the_gates(run, tmp_path: Path) -> None:
    heights = []
    for segmentation, flags in ((False, []), (True, []), (False, ["--debug"])):
        bundle = write_random_bundle(
            tmp_path / f"{segmentation}.imkd", random_spec(past=2, segmentation=segmentation), gates=True
        )
        outcome = run(
            "infer", "synth", "--bundle", bundle, "--frame", "0", "--save", "--out", tmp_path / "out", "--json", *flags
        )
        assert outcome.json["health"]["past_frames"] == 0
        assert set(outcome.json) == {"frame", "timestamp_ns", "detections", "health", "timings_us"}
        heights.append(cv2.imread(str(next((tmp_path / "out").glob("*/overview.png")))).shape[0])
    assert min(heights[1:]) > heights[0] + 200
    alone = run("infer", "synth", "--bundle", bundle, "--frame", "0", "--debug")
    assert alone.code == 2 and alone.stderr.startswith("error[E0104]") and "--save" in alone.stderr


def test_past_frames_accumulate_within_a_scene(run, tmp_path: Path) -> None:
    """Two scenes of key frames, as in nuScenes: the second starts without past frames."""
    bundle = write_random_bundle(tmp_path / "b.imkd", random_spec(past=2))
    options = ["--option", "scenes=2", "--option", "frames_per_scene=4"]
    lines = run("infer", "synth", "--bundle", bundle, "--json", *options).lines
    assert [line["health"]["past_frames"] for line in lines] == [0, 1, 2, 2, 0, 1, 2, 2]
    table = run("infer", "synth", "--bundle", bundle, "--frame", "0", *options).text
    assert "warp" in table
    card = run("inspect", bundle).text
    assert "past frames" in card and "2, one every 0.5 s, 4 channels" in card


def test_frame_of_a_real_recording(run, shared_data: Path, tmp_path: Path) -> None:
    bundle = write_random_bundle(tmp_path / "one.imkd", random_spec(cameras=1))
    source = shared_data / "astyx"
    outcome = run("infer", source, "--bundle", bundle, "--frame", "240", "--save", "--out", tmp_path / "out", "--json")
    assert outcome.json["frame"] == "000240"
    assert outcome.json["health"]["sensors"] == {"camera_front": "ok", "radar_6455": "ok"}
    assert outcome.json["health"]["ego_speed_estimated"]
    assert (tmp_path / "out" / "000240" / "overview.png").is_file()
