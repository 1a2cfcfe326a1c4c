"""Bundles: names, complete writing, and the golden frame."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import bev_onnx, camera_onnx, random_spec
from imkd_edge import Bundle, CameraCalibration, Detector, Ego, Error, RadarCalibration, RadarSweep, SensorRig
from imkd_edge.bundle import find, shipped, write_bundle
from imkd_edge.bundle import format as bundle_format
from imkd_edge.checks.selftest import check_golden, make_golden
from imkd_edge.sources.base import Sample
from imkd_edge.spec import ModelSpec


def write(folder: Path, **changes) -> Bundle:
    spec = random_spec(cameras=1)
    arguments = {"golden": {}, "metrics": {"mAP": 0.25}, "provenance": {"seed": 1}, **changes}
    return write_bundle(folder, spec, camera_onnx(spec), bev_onnx(spec), **arguments)


def test_a_bundle_loads_as_it_was_written(tmp_path: Path) -> None:
    bundle = write(
        tmp_path / "new" / "m.imkd",
        extra={"card.md": "# ü\n".encode()},
        provenance={"data": "ü", "commit": None, "seeds": [1, 2]},
    )
    read = Bundle.load(tmp_path / "new" / "m.imkd")
    assert read.manifest == bundle.manifest and read.path == (tmp_path / "new" / "m.imkd").resolve()
    assert read.spec.to_json() == random_spec(cameras=1).to_json()
    assert read.manifest["metrics"] == {"mAP": 0.25}
    assert read.manifest["provenance"] == {"data": "ü", "commit": None, "seeds": [1, 2]}
    assert read.file("camera.onnx").read_bytes() == camera_onnx(random_spec(cameras=1))
    assert read.file("card.md").read_text() == "# ü\n"
    assert os.listdir(tmp_path / "new") == ["m.imkd"]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    golden = {"b": np.arange(5), "a": np.float32(2)}
    a, b = write(tmp_path / "a.imkd", golden=golden), write(tmp_path / "b.imkd", golden=dict(reversed(golden.items())))
    for name in sorted(os.listdir(a.path)):
        assert (a.path / name).read_bytes() == (b.path / name).read_bytes(), name


def test_the_manifest_is_canonical(tmp_path: Path) -> None:
    text = (write(tmp_path / "m.imkd").path / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_writing_replaces_an_old_bundle(tmp_path: Path) -> None:
    write(tmp_path / "m.imkd", extra={"old.txt": b"1"})
    write(tmp_path / "m.imkd", metrics={"mAP": 0.5})
    assert Bundle.load(tmp_path / "m.imkd").manifest["metrics"] == {"mAP": 0.5}
    assert os.listdir(tmp_path) == ["m.imkd"]


def snapshot(target: Path) -> dict[str, bytes]:
    """The paths of a file or tree, with the content of files and the targets of links."""
    paths = [target, *sorted(target.rglob("*"))] if target.is_dir() else [target]
    return {
        str(path): path.read_bytes() if path.is_file() else os.fsencode(os.readlink(path) if path.is_symlink() else "")
        for path in paths
    }


@pytest.mark.parametrize(
    "kind", ["folder", "empty folder", "file", "dangling link", "link to a folder", "other manifest", "broken manifest"]
)
def test_what_is_not_a_bundle_is_never_replaced(tmp_path: Path, kind: str) -> None:
    target, other = tmp_path / "thesis", tmp_path / "other"
    if kind == "file":
        target.write_text("years of work")
    elif "link" in kind:
        target.symlink_to(other)
        if kind == "link to a folder":
            other.mkdir()
    else:
        target.mkdir()
        if kind != "empty folder":
            (target / "thesis.txt").write_text("years of work")
        if "manifest" in kind:
            (target / "manifest.json").write_text('{"name": "my page"}' if kind == "other manifest" else "{")
    before, names = snapshot(target), os.listdir(tmp_path)
    with pytest.raises(Error) as raised:
        write(target)
    assert raised.value.code == "E0702" and "not a bundle" in raised.value.what and raised.value.where == str(target)
    assert snapshot(target) == before and os.listdir(tmp_path) == names


def test_a_bundle_with_a_foreign_file_is_not_replaced(tmp_path: Path) -> None:
    before = write(tmp_path / "m.imkd")
    (before.path / "notes.txt").write_text("years of work")
    with pytest.raises(Error, match=r"E0702.*notes\.txt"):
        write(tmp_path / "m.imkd", metrics={})
    assert (before.path / "notes.txt").read_text() == "years of work"
    assert json.loads((before.path / "manifest.json").read_text()) == before.manifest


def test_a_damaged_bundle_may_be_written_again(tmp_path: Path) -> None:
    bundle = write(tmp_path / "m.imkd", extra={"card.md": b"#"})
    (bundle.path / "bev.onnx").write_bytes(b"half a")
    (bundle.path / "card.md").unlink()
    assert write(tmp_path / "m.imkd").manifest["metrics"] == {"mAP": 0.25}


def test_a_bundle_whose_spec_is_of_version_1_still_loads(tmp_path: Path) -> None:
    bundle = write(tmp_path / "m.imkd")
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    assert manifest["spec"].pop("history")["frames"] == 0 and manifest["spec"].pop("segmentation") is False
    for entry in manifest["spec"]["head"]["classes"]:
        del entry["exclusive"]
    manifest["spec"]["version"] = 1
    manifest["spec"]["ground_plane"] = [0.0, 0.0, 0.0]
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    expected = ModelSpec.from_json(bundle.spec.to_json())
    for item in expected.head.classes:
        item.exclusive = False  # its boxes stay what they were
    assert Bundle.load(bundle.path).spec == expected


def test_numpy_numbers_are_metrics(tmp_path: Path) -> None:
    bundle = write(tmp_path / "m.imkd", metrics={"mAP": np.float32(0.5), "per_class": np.array([1, 2])})
    assert bundle.manifest["metrics"] == {"mAP": 0.5, "per_class": [1, 2]}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"metrics": {"mAP": float("nan")}}, "E0410"),
        ({"metrics": {"mAP": np.float32("inf")}}, "E0410"),
        ({"provenance": {"data": object()}}, "E0410"),
        ({"provenance": {"data": b"bytes"}}, "E0410"),
        ({"extra": {"../outside": b""}}, "E0408"),
        ({"extra": {"sub/file": b""}}, "E0408"),
        ({"extra": {".hidden": b""}}, "E0408"),
        ({"provenance": {"log": "x" * (1 << 20)}}, "E0402"),
    ],
)
def test_what_cannot_be_written_leaves_everything_as_it_was(tmp_path: Path, changes: dict, code: str) -> None:
    before = write(tmp_path / "m.imkd")
    with pytest.raises(Error) as raised:
        write(tmp_path / "m.imkd", **changes)
    assert raised.value.code == code
    assert Bundle.load(tmp_path / "m.imkd").manifest == before.manifest and os.listdir(tmp_path) == ["m.imkd"]


@pytest.mark.parametrize("step", ["_write_file", "_replace"])
def test_a_disk_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = write(tmp_path / "m.imkd")

    def fail(*arguments) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_format, step, fail)
    with pytest.raises(Error, match="No space left") as raised:
        write(tmp_path / "m.imkd", metrics={})
    assert raised.value.code == "E0702"
    assert Bundle.load(tmp_path / "m.imkd").manifest == before.manifest and os.listdir(tmp_path) == ["m.imkd"]


def test_a_failed_swap_puts_the_old_bundle_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rename = write(tmp_path / "m.imkd"), Path.rename

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(Error):
        write(tmp_path / "m.imkd", metrics={})
    assert Bundle.load(tmp_path / "m.imkd").manifest == before.manifest


def test_an_unknown_bundle_names_the_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_format, "SHIPPED", tmp_path)
    write(tmp_path / "one.imkd")
    write(tmp_path / "two.imkd")
    assert shipped() == ["one", "two"] and find("two") == tmp_path / "two.imkd"
    assert Bundle.load("one").path == (tmp_path / "one.imkd").resolve()
    with pytest.raises(Error) as raised:
        Bundle.load("three")
    assert raised.value.code == "E0401" and "one, two" in raised.value.fix


def test_a_file_that_is_not_in_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(Error) as raised:
        write(tmp_path / "m.imkd").file("teacher.onnx")
    assert raised.value.code == "E0406" and "camera.onnx" in raised.value.fix


# ---- the golden frame ----
def sample(**changes) -> Sample:
    random = np.random.default_rng(3)
    camera = CameraCalibration(
        name="C",
        width=160,
        height=90,
        K=np.array([[128.0, 0, 80], [0, 128, 45], [0, 0, 1]]),
        T_ego_camera=np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1.0]]),
    )
    rig = SensorRig(
        cameras=[camera], radars=[RadarCalibration(name=name, T_ego_radar=np.eye(4)) for name in ("R", "S")]
    )
    clouds = [random.uniform([1, -20, -1, 0, -5], [40, 20, 2, 20, 5], (n, 5)).astype(np.float32) for n in (120, 0, 80)]
    sweeps = [
        RadarSweep("R", clouds[0]),
        RadarSweep("S", clouds[1], 900_000_000),
        RadarSweep("R", clouds[2], 900_000_000, np.eye(4)),
    ]
    content = {
        "frames": {"C": random.integers(0, 256, (90, 160, 3), dtype=np.uint8)},
        "radar": sweeps,
        "ego": Ego(np.eye(4), (5.0, 0, 0.1)),
        "camera_timestamps_ns": {"C": 950_000_000},
        **changes,
    }
    return Sample("one", 1_000_000_000, rig, **content)


def with_golden(folder: Path, moment: Sample, tamper=lambda golden: None) -> Bundle:
    plain = write(folder)
    with Detector(plain, moment.rig, threads=1) as detector:
        golden = make_golden(detector, [moment])
    tamper(golden)
    return write(folder, golden=golden)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"frames": {}},
        {"radar": []},
        {"ego": None},
        {"ego": Ego(twist=(1.0, 0, 0))},
        {"frames": {}, "radar": [], "ego": None},
    ],
    ids=str,
)
def test_the_golden_frame_is_reproduced_by_its_exporter(tmp_path: Path, changes: dict) -> None:
    differences = check_golden(with_golden(tmp_path / "m.imkd", sample(**changes)))
    names = {"images", "depth", "context", "camera_bev", "radar_grid", "heatmap", "box", "boxes", "scores", "labels"}
    assert differences == dict.fromkeys(names, 0.0)


def test_the_golden_frame_holds_the_raw_frame(tmp_path: Path) -> None:
    moment = sample()
    bundle = with_golden(tmp_path / "m.imkd", moment)
    with np.load(bundle.file("golden.npz"), allow_pickle=False) as golden:
        assert np.array_equal(golden["image_0"], moment.frames["C"])
        assert np.array_equal(golden["sweep_points"], np.concatenate([sweep.points for sweep in moment.radar]))
        assert golden["sweep_count"].tolist() == [120, 0, 80]
        assert golden["sweep_timestamp_ns"].tolist() == [1_000_000_000, 900_000_000, 900_000_000]
        assert golden["rig"].tobytes().decode() == moment.rig.to_json()
        assert len(golden["boxes"]) > 0


@pytest.mark.parametrize(
    ("key", "at", "by", "name", "expected"),
    [
        ("tensor_images", 5, 0.5, "images", 0.5),
        ("tensor_heatmap", -1, 0.25, "heatmap", 0.25),
        ("tensor_radar_grid", 0, -1.0, "radar_grid", 1.0),
        ("boxes", (0, 2), 2.0, "boxes", 2.0),
        ("boxes", (0, 6), 2 * np.pi, "boxes", 0.0),
        ("scores", 0, 0.5, "scores", 0.5),
        ("labels", 0, 1, "labels", 1.0),
    ],
)
def test_a_difference_is_measured(tmp_path: Path, key: str, at, by: float, name: str, expected: float) -> None:
    def tamper(golden: dict[str, np.ndarray]) -> None:
        golden[key] = golden[key].copy()
        golden[key][at] += golden[key].dtype.type(by)

    differences = check_golden(with_golden(tmp_path / "m.imkd", sample(), tamper))
    assert differences.pop(name) == pytest.approx(expected, abs=2e-6)
    assert set(differences.values()) == {0.0}


@pytest.mark.parametrize(
    ("dtype", "steps", "excess"),
    [("float16", 0.5, 0.0), ("float16", 1.0, 0.0), ("float16", 2.0, 1.0), ("float32", 0.5, 0.5), ("float32", 2.0, 2.0)],
)
def test_a_float16_tensor_may_differ_by_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, steps: float, excess: float
) -> None:
    """A step of float16 is 2**-10 of a power of two, of which rounding costs half; float32 has no such tolerance."""
    bundle = with_golden(
        tmp_path / "m.imkd", sample(), lambda golden: golden.update(tensor_context=np.full(8, -4.0), stride_context=1)
    )
    device_tensors = Detector.device_tensors

    def with_dtype(self: Detector) -> dict:
        tensors = device_tensors(self)
        return {**tensors, "context": replace(tensors["context"], dtype=dtype)}

    context = np.full(8, -4 * (1 + steps * 2.0**-10), np.float32)
    monkeypatch.setattr(Detector, "tensors", lambda self: {**self._open_core().tensors(), "context": context})
    monkeypatch.setattr(Detector, "device_tensors", with_dtype)
    differences = check_golden(bundle)
    assert differences.pop("context") == pytest.approx(excess * 2.0**-8, abs=1e-7)
    assert set(differences.values()) == {0.0}


def test_a_tensor_rounded_to_half_is_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor as a float16 engine returns it; the boxes stay those of float32."""
    bundle, device_tensors = with_golden(tmp_path / "m.imkd", sample()), Detector.device_tensors

    def rounded(self: Detector) -> dict[str, np.ndarray]:
        tensors = self._open_core().tensors()
        return {name: tensor.astype(np.float16).astype(np.float32) for name, tensor in tensors.items()}

    def half(self: Detector) -> dict:
        return {name: replace(tensor, dtype="float16") for name, tensor in device_tensors(self).items()}

    monkeypatch.setattr(Detector, "tensors", rounded)
    assert max(check_golden(bundle).values()) > 1e-4  # wrong for float32
    monkeypatch.setattr(Detector, "device_tensors", half)
    assert max(check_golden(bundle).values()) < 1e-7  # half a step of the smallest float16


def test_a_different_number_of_boxes_is_infinitely_far(tmp_path: Path) -> None:
    def tamper(golden: dict[str, np.ndarray]) -> None:
        golden.update({name: golden[name][1:] for name in ("boxes", "scores", "labels")})

    differences = check_golden(with_golden(tmp_path / "m.imkd", sample(), tamper))
    assert differences["boxes"] == differences["scores"] == float("inf")


def test_without_a_rig_the_detector_takes_the_golden_one(tmp_path: Path) -> None:
    moment = sample()
    with Detector(with_golden(tmp_path / "m.imkd", moment)) as detector:
        assert detector.rig.to_json() == moment.rig.to_json()


def test_without_a_golden_frame_the_detector_needs_a_rig(tmp_path: Path) -> None:
    with pytest.raises(Error) as raised:
        Detector(write(tmp_path / "m.imkd"))
    assert raised.value.code == "E0410" and "rig" in raised.value.what


@pytest.mark.parametrize("missing", ["rig", "tensor_box", "sweep_points"])
def test_a_golden_file_that_lacks_something_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(Error) as raised:
        check_golden(with_golden(tmp_path / "m.imkd", sample(), lambda golden: golden.pop(missing)))
    assert raised.value.code == "E0410" and missing in raised.value.what


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"rig": np.frombuffer(b"{\xff}", np.uint8)}, "utf-8"),
        ({"rig": np.frombuffer(b"[]", np.uint8)}, "golden.npz"),
        ({"stride_heatmap": np.int64(0)}, "stride_heatmap"),
        ({"stride_heatmap": np.float64(3)}, "stride_heatmap"),
        ({"sweep_radar": np.array([0, 2, 0], np.int32)}, "sweep_radar"),
        ({"sweep_radar": np.array([0, -1, 0], np.int32)}, "sweep_radar"),
        ({"sweep_count": np.array([200], np.int32)}, "sweep_count is int32 (1,), not int32 (3,)"),
        ({"sweep_count": np.array([120, 0, 79], np.int32)}, "sweep_count"),
        ({"sweep_count": np.array([210, -10, 0], np.int32)}, "sweep_count"),
        ({"sweep_points": np.zeros((200, 4), np.float32)}, "sweep_points"),
        ({"camera_timestamps_ns": np.zeros(2, np.int64)}, "camera_timestamps_ns"),
        ({"image_0": np.zeros((90, 100, 3), np.uint8)}, "camera C"),
        ({"ego_T_world_ego": np.zeros((4, 4))}, "T_world_ego"),
        ({"scores": np.array("none")}, "scores"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_golden_frame_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict, what: str) -> None:
    with pytest.raises(Error) as raised:
        check_golden(with_golden(tmp_path / "m.imkd", sample(), lambda golden: golden.update(changes)))
    assert raised.value.code == "E0410" and what in raised.value.what and "golden.npz" in raised.value.where


def test_a_golden_file_that_is_no_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.BytesIO()
    np.save(plain, np.zeros(3))
    monkeypatch.setattr(bundle_format, "npz_bytes", lambda arrays: plain.getvalue())
    with pytest.raises(Error) as raised:
        check_golden(write(tmp_path / "m.imkd"))
    assert raised.value.code == "E0410" and raised.value.what.startswith("golden.npz: ")


def test_a_shipped_bundle_is_found_by_its_former_name() -> None:
    for former, name in bundle_format.RENAMED.items():
        assert former not in shipped() and find(former) == find(name)
