"""The Detector: tensors of the ops, boxes that follow from them, and the same bits in every run."""

from __future__ import annotations

import gc
import json
import sys
import threading
import weakref

import numpy as np
import pytest

from imkd_edge import Bundle, Detector, Ego, RadarSweep, ops
from imkd_edge.engines import engine_names

STAGES = ("preprocess", "camera", "lift", "radar", "warp", "bev", "decode")
TENSORS = ("images", "depth", "context", "camera_bev", "radar_grid", "heatmap", "box")


def run(detector: Detector, scene, **changes):
    arguments = {name: getattr(scene, name) for name in ("frames", "radar", "ego", "timestamp_ns")}
    return detector.infer(**{**arguments, **changes})


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("boxes", "scores", "labels"))


def test_result_has_the_documented_form(detector: Detector, scene) -> None:
    result = run(detector, scene)
    count = len(result.detections)
    assert count > 3
    assert result.boxes.shape == (count, 9) and result.boxes.dtype == np.float32
    assert result.scores.shape == (count,) and (np.diff(result.scores) <= 0).all()
    assert result.labels.dtype == np.int32 and set(result.names) <= {"car", "pedestrian"}
    assert list(result.timings_us) == list(STAGES) and result.timings_us["warp"] == 0  # no past frames
    assert all(time > 0 for stage, time in result.timings_us.items() if stage != "warp")
    assert result.total_us >= sum(result.timings_us.values()) * 0.99
    assert result.health.mode == "full" and result.health.sensors == dict.fromkeys(
        ["AHEAD", "BEHIND", "FRONT", "REAR"], "ok"
    )
    first = result.detections[0]
    assert np.array_equal(np.concatenate([first.center, first.size, [first.yaw], first.velocity]), result.boxes[0])


def test_result_as_json_has_the_documented_keys(detector: Detector, scene) -> None:
    form = json.loads(json.dumps(run(detector, scene).to_dict(), allow_nan=False))
    assert set(form) == {"timestamp_ns", "detections", "health", "timings_us"}
    assert set(form["detections"][0]) == {"label", "score", "center", "size", "yaw", "velocity"}
    assert [len(form["detections"][0][key]) for key in ("center", "size", "velocity")] == [3, 3, 2]
    assert form["health"]["sensors"]["AHEAD"] == "ok" and form["timestamp_ns"] == scene.timestamp_ns
    assert set(form["timings_us"]) == {*STAGES, "total"}


def test_every_tensor_is_what_the_ops_and_onnxruntime_give(bundle: Bundle, detector: Detector, scene) -> None:
    """Against the ops and plain ONNX Runtime sessions, called one after another."""
    import onnxruntime as ort

    result, tensors, spec, rig = run(detector, scene), detector.tensors(), detector.spec, scene.rig
    assert set(tensors) == set(TENSORS)
    crops = [ops.image_crop(spec.image, camera.width, camera.height) for camera in rig.cameras]
    images = ops.preprocess_images([scene.frames[camera.name] for camera in rig.cameras], crops, spec.image)
    assert np.array_equal(tensors["images"], images)
    session = ort.InferenceSession(str(bundle.file("camera.onnx")), providers=["CPUExecutionProvider"])
    depth, context = session.run(["depth", "context"], {"images": images})
    np.testing.assert_allclose(tensors["depth"], depth, atol=1e-6)
    np.testing.assert_allclose(tensors["context"], context, atol=1e-4)
    camera_bev = ops.lift(spec, ops.lift_table(spec, rig, crops), tensors["depth"], tensors["context"])
    assert np.array_equal(tensors["camera_bev"][0], camera_bev)
    radar_grid, _ = ops.voxelize_radar(spec, rig, scene.radar, scene.timestamp_ns)
    assert np.array_equal(tensors["radar_grid"][0], radar_grid)
    session = ort.InferenceSession(str(bundle.file("bev.onnx")), providers=["CPUExecutionProvider"])
    inputs = {name: tensors[name] for name in ("camera_bev", "radar_grid")}
    heatmap, box = session.run(["heatmap", "box"], inputs)
    np.testing.assert_allclose(tensors["heatmap"], heatmap, atol=1e-3)
    np.testing.assert_allclose(tensors["box"], box, atol=1e-3)
    ground = ops.ground_of(spec, rig)
    boxes, scores, labels = ops.decode(spec, tensors["heatmap"][0], tensors["box"][0], ground)
    assert np.array_equal(result.boxes, boxes)
    assert np.array_equal(result.scores, scores) and np.array_equal(result.labels, labels)


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-native"])
def test_same_bits_for_every_repeat_and_number_of_threads(bundle: Bundle, scene, engine: str) -> None:
    if engine not in engine_names():
        pytest.skip("the core was built without ONNX Runtime's headers: the native engine is NOT tested")
    results = []
    for threads in (1, 2, 4):
        with Detector(bundle, scene.rig, engine=engine, threads=threads) as detector:
            results += [run(detector, scene) for _ in range(34)]
    assert len(results[0].boxes) > 3 and all(same(result, results[0]) for result in results)


def test_the_native_engine_gives_the_same_output(bundle: Bundle, scene, make_scene) -> None:
    if "onnxruntime-native" not in engine_names():
        pytest.skip("the core was built without ONNX Runtime's headers: the native engine is NOT tested")
    with (
        Detector(bundle, scene.rig, engine="onnxruntime") as a,
        Detector(bundle, scene.rig, engine="onnxruntime-native") as b,
    ):
        for seed in range(5):
            other = make_scene(seed=seed)
            assert same(run(a, other), run(b, other))
            for name, tensor in a.tensors().items():
                assert np.array_equal(tensor, b.tensors()[name]), name


def test_lists_and_dicts_mean_the_same(detector: Detector, scene) -> None:
    expected = run(detector, scene)
    assert same(expected, run(detector, scene, frames=list(scene.frames.values()), radar=scene.points))
    backwards = {name: scene.frames[name] for name in reversed(scene.frames)}
    assert same(expected, run(detector, scene, frames=backwards, radar=scene.radar[::-1]))


def test_any_strides_give_the_same_result(detector: Detector, scene) -> None:
    expected = run(detector, scene)
    wide = {name: np.repeat(image, 2, axis=1)[:, ::2] for name, image in scene.frames.items()}
    flipped = {
        name: np.ascontiguousarray(image[::-1, ::-1, ::-1])[::-1, ::-1, ::-1] for name, image in scene.frames.items()
    }
    planar = {
        name: np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0) for name, image in scene.frames.items()
    }
    for frames in (wide, flipped, planar):
        assert not any(image.flags.c_contiguous for image in frames.values())
        assert same(expected, run(detector, scene, frames=frames))
    points = {name: np.asfortranarray(cloud) for name, cloud in scene.points.items()}
    assert same(expected, run(detector, scene, radar=points))


def test_infer_neither_changes_nor_references_the_callers_arrays(detector: Detector, scene) -> None:
    image, cloud = scene.frames["AHEAD"], scene.points["FRONT"]
    before, counts = (image.copy(), cloud.copy()), (sys.getrefcount(image), sys.getrefcount(cloud))
    first = run(detector, scene)
    boxes = first.boxes.copy()
    assert np.array_equal(image, before[0]) and np.array_equal(cloud, before[1])
    assert (sys.getrefcount(image), sys.getrefcount(cloud)) == counts
    image[:] = 0
    run(detector, scene)
    assert np.array_equal(first.boxes, boxes)  # a result is not a view of memory that the next frame overwrites


def test_tensors_are_copies(detector: Detector, scene) -> None:
    run(detector, scene)
    tensors = detector.tensors()
    tensors["images"][:] = 7
    assert not np.array_equal(detector.tensors()["images"], tensors["images"])


def test_two_detectors_in_two_threads_do_not_disturb_each_other(bundle: Bundle, make_scene) -> None:
    scenes = [make_scene(seed=seed) for seed in (1, 2)]
    detectors = [Detector(bundle, scene.rig, threads=2) for scene in scenes]
    expected = [run(detector, scene) for detector, scene in zip(detectors, scenes, strict=True)]
    assert not same(*expected)
    errors = []

    def work(i: int) -> None:
        errors.extend(i for _ in range(50) if not same(run(detectors[i], scenes[i]), expected[i]))

    _in_threads(work, 2)
    assert errors == []


def test_one_detector_may_be_called_from_several_threads(bundle: Bundle, make_scene) -> None:
    scenes = [make_scene(seed=seed) for seed in range(3)]
    detector = Detector(bundle, scenes[0].rig, threads=2)
    expected = [run(detector, scene) for scene in scenes]
    errors = []

    def work(i: int) -> None:
        for _ in range(30):
            errors.extend([] if same(run(detector, scenes[i]), expected[i]) else [i])
            detector.tensors()

    _in_threads(work, 3)
    assert errors == []


def _in_threads(work, count: int) -> None:
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert not any(thread.is_alive() for thread in threads)


def test_set_rig_gives_what_a_new_detector_would(bundle: Bundle, detector: Detector, scene) -> None:
    before = run(detector, scene)
    new_rig = scene.rig
    T = np.array(new_rig.cameras[0].T_ego_camera)
    T[:3, 3] += [1.0, 0.5, 0.3]
    new_rig.cameras[0].T_ego_camera = T
    detector.set_rig(new_rig)
    after = run(detector, scene)
    assert not same(before, after)
    assert same(after, run(Detector(bundle, new_rig, threads=1), scene))
    assert detector.rig.to_json() == new_rig.to_json()


def test_score_threshold_is_obeyed(bundle: Bundle, detector: Detector, scene) -> None:
    every = run(detector, scene)
    threshold = float(np.median(every.scores))
    with Detector(bundle, scene.rig, score_threshold=threshold) as best:
        few = run(best, scene)
    assert 0 < len(few.scores) < len(every.scores)
    assert few.scores.min() >= threshold - 1e-6 > every.scores.min()


def test_ego_motion_moves_old_sweeps(detector: Detector, scene) -> None:
    """At 8 m/s a point 20 m ahead and 0.5 s old is 4 m nearer; cells are 0.8 m, x starts at -51.2 m."""
    point = np.array([[20.2, 0.2, 0, 10, 0]], np.float32)
    sweep = RadarSweep("FRONT", point, scene.timestamp_ns - 500_000_000)
    for ego, x in ((None, 20.2), (Ego(twist=(8.0, 0.0, 0.0)), 16.2)):
        run(detector, scene, radar=[sweep], ego=ego)
        occupied = np.argwhere(detector.tensors()["radar_grid"][0, 0])
        assert occupied.tolist() == [[int((0.2 + 51.2) / 0.8), int((x + 51.2) / 0.8)]]


def test_a_rig_may_be_given_by_path(bundle: Bundle, scene, tmp_path) -> None:
    (tmp_path / "rig.json").write_text(scene.rig.to_json())
    with Detector(bundle, tmp_path / "rig.json", threads=1) as detector:
        assert len(run(detector, scene).boxes) > 3


def test_a_detector_frees_itself(bundle: Bundle, scene) -> None:
    detector = Detector(bundle, scene.rig)
    run(detector, scene)
    reference = weakref.ref(detector)
    del detector
    gc.collect()
    assert reference() is None


def test_a_device_tensor_keeps_its_memory(bundle: Bundle, scene) -> None:
    """Beyond close() and the detector, as long as the tensor or an array made from it lives, and not longer."""
    detector = Detector(bundle, rig=scene.rig)
    run(detector, scene)
    reference = weakref.ref(detector._core)
    copy, tensor = detector.tensors()["camera_bev"], detector.device_tensors()["camera_bev"]
    detector.close()
    del detector
    gc.collect()
    assert reference() is not None
    array = np.asarray(tensor)
    del tensor
    gc.collect()
    assert reference() is not None and np.array_equal(array, copy) and np.ptp(copy) > 0
    del array
    gc.collect()
    assert reference() is None
