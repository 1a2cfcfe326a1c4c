"""The golden drive of a bundle: what it holds, that a past is probed, and that older single frames still load."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import imkd_edge.checks.drive as drive_module
from helpers import random_drive, random_spec, write_random_bundle
from imkd_edge import Bundle, Detector, Error
from imkd_edge.bundle import PARTS, shipped, write_bundle
from imkd_edge.bundle.golden import PIXELS, pack_drive, read_golden
from imkd_edge.checks.cameras import export_with_cameras
from imkd_edge.checks.drive import FRAMES, WITHOUT_POSE, WITHOUT_SENSOR, golden_samples, recorded_drive
from imkd_edge.checks.selftest import beyond_tolerance, check_golden, replay
from imkd_edge.sources.base import Sample, Source
from imkd_edge.sources.synth import default_rig

S = 1_000_000_000  # ns
OTHERS = [i for i in range(FRAMES) if i not in (WITHOUT_SENSOR, WITHOUT_POSE)]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Random weights and two past maps."""
    folder = tmp_path_factory.mktemp("past") / "past.imkd"
    return Bundle.load(write_random_bundle(folder, random_spec(past=2, segmentation=True)))


def arrays_of(bundle: Bundle) -> dict[str, np.ndarray]:
    with np.load(bundle.file("golden.npz")) as archive:
        return dict(archive)


def rewrite(bundle: Bundle, folder: Path, golden: dict[str, np.ndarray]) -> Bundle:
    """A copy of a bundle with another golden.npz."""
    parts = (bundle.file(f"{part}.onnx").read_bytes() for part in PARTS)
    return write_bundle(folder, bundle.spec, *parts, golden, {}, {}, contract=bundle.contract)


# ---- what it holds ----
@pytest.mark.parametrize("name", shipped())
def test_a_shipped_bundle_has_six_frames_one_without_a_sensor_and_one_without_a_pose(name: str) -> None:
    frames = read_golden(Bundle.load(name))
    cameras = [camera.name for camera in frames[0].rig.cameras]
    assert len(frames) == 6
    images, radar, ego, times = zip(*(frame.arguments()[:4] for frame in frames))
    absent = [[name for name, image in zip(cameras, row, strict=True) if image is None] for row in images]
    assert absent == [cameras[-1:] if i == WITHOUT_SENSOR else [] for i in range(6)]
    posed = [e.T_world_ego is not None and all(s.T_world_ego is not None for s in r) for e, r in zip(ego, radar)]
    assert posed == [i != WITHOUT_POSE for i in range(6)] and ego[WITHOUT_POSE].twist is None
    assert [time - times[0] for time in times] == [i * S // 2 for i in range(6)]  # the history's interval
    moved = [np.linalg.norm(b.T_world_ego[:2, 3] - a.T_world_ego[:2, 3]) for a, b in itertools.pairwise(ego[:3])]
    assert min(moved) > 4  # m


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_bundle_reproduces_its_drive(name: str) -> None:
    assert beyond_tolerance(check_golden(name, threads=1)) == {}


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_drive_has_boxes_and_is_small(name: str) -> None:
    bundle = Bundle.load(name)
    assert sum(len(frame.arrays["boxes"]) for frame in read_golden(bundle)) > 0
    assert bundle.file("golden.npz").stat().st_size < 0.7e6


def test_a_model_with_a_past_is_probed_with_its_past(past: Bundle) -> None:
    with Detector(past, threads=1) as detector:
        results = list(replay(past, detector))
        assert [result.health.past_frames for result in results][:3] == [0, 1, 2]
        assert results[-1].health.past_frames > 0
        assert [result.health.mode for result in results][WITHOUT_SENSOR] == "partial"


def test_a_detector_that_loses_its_past_differs(past: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(check_golden(past, threads=1).values()) == 0
    infer = Detector.infer

    def forgetful(self: Detector, *arguments: object) -> object:
        self.reset()
        return infer(self, *arguments)

    monkeypatch.setattr(Detector, "infer", forgetful)
    differences = check_golden(past, threads=1)
    assert differences["heatmap"] > 0.02 and differences["images"] == differences["fused"] == 0


def test_the_order_of_the_frames_matters(past: Bundle, tmp_path: Path) -> None:
    swapped = {f"{i}/": f"{j}/" for i, j in ((0, 1), (1, 0))}
    golden = {swapped.get(name[:2], name[:2]) + name[2:]: array for name, array in arrays_of(past).items()}
    assert check_golden(rewrite(past, tmp_path / "m.imkd", golden), threads=1)["heatmap"] > 0.02


@pytest.mark.parametrize("frame", range(FRAMES))
def test_a_difference_in_any_frame_is_measured(past: Bundle, frame: int, tmp_path: Path) -> None:
    golden = arrays_of(past)
    golden[f"{frame}/tensor_heatmap"][3] += 0.25
    golden[f"{frame}/labels"][:2] += 1
    differences = check_golden(rewrite(past, tmp_path / "m.imkd", golden), threads=1)
    assert differences["heatmap"] == pytest.approx(0.25, abs=2e-6) and differences["labels"] == 2


# ---- compact images ----
def test_each_pixel_of_an_image_stands_for_a_block() -> None:
    samples = random_drive(2, 0.5)
    frames = pack_drive(samples)
    step = int(frames[0].arrays["image_step"])
    images = [array for f in frames for name, array in f.arrays.items() if name in ("image_0", "image_1")]
    assert step > 1 and sum(image.shape[0] * image.shape[1] for image in images) <= PIXELS
    for sample, frame in zip(samples, frames, strict=True):
        for camera, image in zip(sample.rig.cameras, frame.arguments()[0], strict=True):
            raw = sample.frames.get(camera.name)
            if raw is None:
                assert image is None
                continue
            v, u = np.indices(raw.shape[:2])
            assert np.array_equal(image, raw[v // step * step, u // step * step])


def test_small_images_are_kept_to_the_pixel() -> None:
    source = golden_samples("synth", default_rig((64, 48)), random_spec())
    for sample, frame in zip(source, pack_drive(source), strict=True):
        for camera, image in zip(sample.rig.cameras, frame.arguments()[0], strict=True):
            if camera.name in sample.frames:
                assert np.array_equal(image, sample.frames[camera.name])


# ---- older and broken files ----
def test_a_bundle_with_one_golden_frame_still_loads(past: Bundle, tmp_path: Path) -> None:
    golden = arrays_of(past)
    own = {name[2:]: array for name, array in golden.items() if name.startswith("0/")}
    shared = {name: array for name, array in golden.items() if "/" not in name and name != "frames"}
    image = {name: array for name, array in own.items() if name.startswith("image_")}
    step = int(shared.pop("image_step"))
    whole = {name: array.repeat(step, 0).repeat(step, 1)[:270, :480] for name, array in image.items()}
    old = rewrite(past, tmp_path / "m.imkd", {**shared, **own, **whole})
    assert set(check_golden(old, threads=1).values()) == {0.0}
    with Detector(old, threads=1) as detector:
        assert len(list(replay(old, detector))) == 1
    export_with_cameras(old, None, tmp_path / "new.imkd", "synth")
    assert len(read_golden(Bundle.load(tmp_path / "new.imkd"))) == FRAMES


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"frames": np.int64(0)}, "frames is 0"),
        ({"frames": np.int64(-1)}, "frames is -1"),
        ({"frames": np.int64(5)}, "frames is 5, and the arrays are of 6 frames"),
        ({"frames": np.int64(7)}, "frames is 7"),
        ({"frames": np.int64(10**15)}, "frames is 1000000000000000"),
        ({"frames": np.int64(10**15), f"{10**15 - 1}/boxes": np.zeros(1)}, "frames is 1000000000000000"),
        ({"frames": np.float64(6)}, "frames is float64"),
        ({"frames": np.zeros(2, np.int64)}, "frames is int64 (2,)"),
        ({"x/boxes": np.zeros(3)}, "x/boxes belongs to no frame"),
        ({"image_step": np.int64(0)}, "frame 0: image_step is below 1"),
        ({"image_step": np.int64(1)}, "frame 0: image is "),
        ({"4/image_1": np.zeros((3, 3, 3), np.uint8)}, "frame 4: image is 3x3"),
        ({"3/boxes": np.zeros((2, 8), np.float32)}, "frame 3: boxes is float32 (2, 8)"),
        ({"5/rig": np.frombuffer(b"[]", np.uint8)}, "frame 5: "),
        ({"2/ego_T_world_ego": np.zeros((4, 4))}, "frame 2: "),
        ({"1/timestamp_ns": None}, "frame 1: it has no timestamp_ns"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_a_drive_that_contradicts_itself_is_refused(past: Bundle, changes: dict, what: str, tmp_path: Path) -> None:
    golden = {name: array for name, array in {**arrays_of(past), **changes}.items() if array is not None}
    with pytest.raises(Error) as raised:
        check_golden(rewrite(past, tmp_path / "m.imkd", golden), threads=1)
    assert raised.value.code == "E0410" and what in raised.value.what and "golden.npz" in raised.value.where


# ---- remaking it ----
def test_the_world_can_be_seen_by_another_rig(past: Bundle, tmp_path: Path) -> None:
    rig = default_rig((160, 90))
    rig.cameras = [replace_name(camera, f"own {i}") for i, camera in enumerate(list(rig.cameras)[:2])]
    (tmp_path / "rig.json").write_text(rig.to_json())
    export_with_cameras(past, None, tmp_path / "m.imkd", str(tmp_path / "rig.json"))
    new = Bundle.load(tmp_path / "m.imkd")
    assert [camera.name for camera in read_golden(new)[0].rig.cameras] == ["own 0", "own 1"]
    assert set(check_golden(new, threads=1).values()) == {0.0}
    assert new.manifest["provenance"] == {**past.manifest["provenance"], "golden": "synthetic world"}
    assert all(new.file(f"{part}.onnx").read_bytes() == past.file(f"{part}.onnx").read_bytes() for part in PARTS)


def replace_name(camera, name: str):
    camera.name = name
    return camera


def test_a_bundle_can_be_remade_where_it_is(tmp_path: Path) -> None:
    bundle = Bundle.load(write_random_bundle(tmp_path / "m.imkd", random_spec()))
    before = bundle.file("golden.npz").read_bytes()
    export_with_cameras(bundle, None, bundle.path, "synth")
    assert Bundle.load(bundle.path).file("golden.npz").read_bytes() == before


class TenHertz(Source):
    """Two scenes of 10 Hz: the first too short; the samples have no sensor data."""

    kind = "drive"

    def __init__(self, lengths: tuple[int, ...]) -> None:
        moments = [(f"scene {i}", frame) for i, length in enumerate(lengths) for frame in range(length)]
        rig = default_rig((64, 48))
        self.samples = {
            f"{scene} {k}": Sample(f"{scene} {k}", k * S // 10, rig, {}, [], scene=scene) for scene, k in moments
        }
        self.names = list(self.samples)

    def __getitem__(self, name: str) -> Sample:
        return self.samples[name]


def test_the_frames_of_a_recording_are_an_interval_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    source = TenHertz((20, 40))
    monkeypatch.setattr(drive_module, "select", lambda data: source_selection(source))
    samples = recorded_drive("recording", random_spec(past=2))
    assert {sample.scene for sample in samples} == {"scene 1"} and len(samples) == FRAMES
    for k, sample in enumerate(samples):
        assert abs(sample.timestamp_ns - k * S // 2) <= S // 8
    spaced = itertools.pairwise(samples)
    assert all(abs(b.timestamp_ns - a.timestamp_ns - S // 2) <= S // 8 for a, b in spaced)


def test_a_recording_that_is_too_short_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive_module, "select", lambda data: source_selection(TenHertz((20, 20))))
    with pytest.raises(Error) as raised:
        recorded_drive("recording", random_spec(past=2))
    assert raised.value.code == "E0307" and "6 frames" in raised.value.what and "synth" in raised.value.fix


def source_selection(source: Source):
    from imkd_edge.sources.select import Selection

    return Selection(source, source.names)


def test_the_faults_are_injected_into_a_recording_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world = random_drive(2, 0.5)
    whole = [replace(sample, name=str(i), ego=world[0].ego, frames=world[0].frames) for i, sample in enumerate(world)]
    monkeypatch.setattr(drive_module, "recorded_drive", lambda data, spec: whole)
    samples = golden_samples("recording", default_rig(), random_spec())
    last = whole[0].rig.cameras[-1].name
    assert set(whole[0].frames) - set(samples[WITHOUT_SENSOR].frames) == {last}
    assert samples[WITHOUT_POSE].ego is None
    assert all(samples[i] == whole[i] or samples[i] is whole[i] for i in OTHERS)
