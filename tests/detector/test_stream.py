"""`Detector.stream` and the result of a sample: names, pictures, files, and no sensor data kept alive."""

from __future__ import annotations

import gc
import json
import pickle
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from imkd_edge import Code, Detector, Error
from imkd_edge.sources.base import Sample
from imkd_edge.sources.select import select
from imkd_edge.sources.synth import SynthSource


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(select("synth", span="s000-f000-s000-f002"))


@pytest.fixture(scope="module")
def detector(samples: list[Sample]) -> Iterator[Detector]:
    with Detector("tiny", samples[0].rig, threads=1) as detector:
        yield detector


class Stored:
    """A source of which one frame cannot be read."""

    kind = "stored"

    def __init__(self, samples: list[Sample], broken: int | None = None):
        self.names, self.samples, self.broken = [sample.name for sample in samples], samples, broken
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[Sample]:
        for index, sample in enumerate(self.samples):
            self.threads.add(threading.get_ident())
            if index == self.broken:
                raise Error(Code.source_missing_file, "the image is not there", sample.name, "copy it again")
            yield sample


def test_results_come_in_order_with_names_and_the_boxes_of_infer(detector: Detector, samples: list[Sample]) -> None:
    results = list(detector.stream(Stored(samples)))
    assert [result.frame for result in results] == [sample.name for sample in samples]
    detector.reset()
    for result, sample in zip(results, samples, strict=True):
        single = detector.infer(sample.frames, sample.radar, sample.ego, sample.timestamp_ns)
        np.testing.assert_array_equal(result.boxes, single.boxes)
        assert len(result) == len(result.detections) == len(single) > 0


def test_a_stored_source_is_read_in_another_thread_and_a_live_one_in_the_callers(
    detector: Detector, samples: list[Sample]
) -> None:
    source = Stored(samples)
    assert len(list(detector.stream(source))) == 3 and threading.get_ident() not in source.threads
    threads = []

    def live() -> Iterator[Sample]:
        for sample in samples:
            threads.append(threading.get_ident())
            yield sample

    assert len(list(detector.stream(live()))) == 3 and set(threads) == {threading.get_ident()}


def test_a_frame_that_cannot_be_read_raises_after_the_results_before_it(
    detector: Detector, samples: list[Sample]
) -> None:
    frames = []
    with pytest.raises(Error) as error:
        for result in detector.stream(Stored(samples, broken=2)):
            frames.append(result.frame)
    assert error.value.code == "E0302" and frames == [sample.name for sample in samples[:2]]


def test_a_loop_may_end_early(detector: Detector, samples: list[Sample]) -> None:
    for result in detector.stream(Stored(samples)):
        assert result.frame == samples[0].name
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("imkd-read-ahead")]


def test_a_source_may_be_named(detector: Detector) -> None:
    assert next(iter(detector.stream("synth"))).frame == "s000-f000"


def test_a_tracks_detections_are_one_object_and_ids_are_not_those_of_another_scene(detector: Detector) -> None:
    """The truth of the synthetic world says which boxes are one object."""
    source = SynthSource(scenes=2, frames_per_scene=4, image=(240, 135), sweeps=1)
    objects: dict[int, set[tuple[str, int]]] = defaultdict(set)  # track -> scene and object of each detection
    hits: dict[int, int] = defaultdict(int)
    for sample, result in zip(source, detector.stream(source, track=True), strict=True):
        for track in result.tracks:
            if track.detection is None or track.label != "car":
                continue
            distances = np.hypot(*(sample.truth.boxes[:, :2] - result.boxes[track.detection, :2]).T)
            if distances.min() < 2:
                objects[track.id].add((sample.scene, source.instances(sample.name)[int(distances.argmin())]))
                hits[track.id] += 1
    long = [id for id, count in hits.items() if count >= 3]
    assert len(long) >= 6 and all(len(objects[id]) == 1 for id in long)
    scenes = {id: {scene for scene, _ in seen} for id, seen in objects.items()}
    assert all(len(names) == 1 for names in scenes.values()) and len(set.union(*scenes.values())) == 2


def test_tracks_are_there_only_where_asked_for(detector: Detector, samples: list[Sample]) -> None:
    for track in (False, True):
        results = list(detector.stream(iter(samples), track=track))
        assert [result.tracks is not None for result in results] == [track] * 3
        assert all(("tracks" in result.to_dict()) == track for result in results)
        assert (len(results[-1].track_of) > 0) == track
        assert bool(results[-1].confirmed_tracks) == track


def test_the_picture_is_there_while_the_sample_is(detector: Detector, samples: list[Sample]) -> None:
    copy = select("synth", names=["s000-f001"])
    for result in detector.stream(iter(copy)):
        picture = result.plot(theme="light")
        assert picture.dtype == np.uint8 and picture.ndim == 3
    gc.collect()
    with pytest.raises(Error) as error:
        result.plot()
    assert error.value.code == "E0104" and "result.plot(sample)" in str(error.value)
    np.testing.assert_array_equal(result.plot(samples[1], "light"), picture)


def test_a_theme_that_there_is_not_is_refused(detector: Detector, samples: list[Sample], tmp_path: Path) -> None:
    result = detector.infer_sample(samples[0])
    for draw in (result.plot, lambda *arguments: result.save(tmp_path / "boxes.png", *arguments)):
        with pytest.raises(Error, match=r"E0104.*no theme 'pink'.*dark or light"):
            draw(samples[0], "pink")
    assert not list(tmp_path.iterdir())


def test_a_result_is_saved_as_picture_or_json(detector: Detector, samples: list[Sample], tmp_path: Path) -> None:
    result = detector.infer_sample(samples[0])
    result.save(tmp_path / "boxes.png")
    result.save(str(tmp_path / "boxes.json"))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "boxes.png"))[:, :, ::-1], result.plot())
    record = json.loads((tmp_path / "boxes.json").read_text())
    assert record == json.loads(json.dumps(result.to_dict())) and record["frame"] == samples[0].name
    with pytest.raises(Error, match=r"neither \.png nor \.json"):
        result.save(tmp_path / "boxes.bmp")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes.json", "boxes.png"]


def test_a_result_without_boxes_is_true_and_a_copy_in_another_process_has_its_boxes(
    detector: Detector, samples: list[Sample]
) -> None:
    result = detector.infer_sample(samples[0])
    copy = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(copy.boxes, result.boxes)
    assert copy.frame == result.frame and copy.origin is None
    empty = detector.infer({}, {})
    assert len(empty) == 0 and empty and "frame" not in empty.to_dict()
