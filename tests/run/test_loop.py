"""The loop: the live path detects what infer detects, and files are complete whatever ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from imkd_edge import Code, Detector, Error, RadarCalibration, SensorRig
from imkd_edge.result import Result
from imkd_edge.run.loop import percentiles, run
from imkd_edge.run.sink import QUEUE, Sink, Worker
from imkd_edge.run.sinks import open_sink, open_sinks
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource
from imkd_edge.tracking import Tracker


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Two scenes of two frames; only sweeps that no later sample has, so that live and stored frames hold the same."""
    source = SynthSource(scenes=2, frames_per_scene=2, image=(240, 135), sweeps=1)
    return list(source)


@pytest.fixture(scope="module")
def detector(samples: list[Sample]) -> Iterator[Detector]:
    with Detector("tiny", samples[0].rig, threads=1) as detector:
        yield detector


def test_the_live_path_detects_what_infer_detects(detector: Detector, samples: list[Sample], tmp_path: Path) -> None:
    """The first frame of a scene: later ones have sweeps of their past, which a single sample lacks."""
    status = run(detector, samples, [open_sink(tmp_path / "boxes.jsonl")])
    lines = [json.loads(line) for line in (tmp_path / "boxes.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [sample.name for sample in samples]
    for index in (0, 2):
        detector.reset()
        expected = detector.infer_sample(samples[index]).to_dict()
        assert lines[index]["detections"] == expected["detections"] != []
    assert status.frames == 4 and status.detections == sum(len(line["detections"]) for line in lines)
    assert status.modes == {"full": 4} and status.to_dict()["latency_ms"] is None


def test_in_real_time_the_latency_counts_from_the_newest_measurement(detector: Detector, samples: list[Sample]) -> None:
    status = run(detector, samples[:2], real_time=True)
    assert status.frames == 2 and all(
        latency >= infer for latency, infer in zip(status.latency_ms, status.infer_ms, strict=True)
    )


def test_another_rig_replaces_the_samples(detector: Detector, samples: list[Sample]) -> None:
    radars = list(samples[0].rig.radars)
    status = run(detector, samples[:1], rig=SensorRig(cameras=[], radars=radars))
    assert set(status.modes) == {"radar_only"}
    other = SensorRig(cameras=[], radars=[RadarCalibration(name="other", T_ego_radar=np.eye(4))])
    with pytest.raises(Error, match="CAM_FRONT"):
        run(detector, samples[:1], rig=other)


class Interrupted(Sink):
    """Ctrl-C during the second frame."""

    def __init__(self) -> None:
        self.frames, self.closed = 0, False

    def write(self, sample: Sample, result: Result) -> None:
        self.frames += 1
        if self.frames == 2:
            raise KeyboardInterrupt

    def close(self) -> None:
        self.closed = True


def test_an_interrupt_completes_every_file(detector: Detector, samples: list[Sample], tmp_path: Path) -> None:
    interrupted = Interrupted()
    sinks = [*open_sinks([tmp_path / "a.jsonl", tmp_path / "a.mp4"]), interrupted]
    with pytest.raises(KeyboardInterrupt):
        run(detector, samples, sinks)
    assert interrupted.closed and len((tmp_path / "a.jsonl").read_text().splitlines()) == 2
    assert len(pictures(tmp_path / "a.mp4")) >= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.mp4"]


def pictures(path: Path) -> list[np.ndarray]:
    video, frames = cv2.VideoCapture(str(path)), []
    while (frame := video.read())[0]:
        frames.append(frame[1][:, :, ::-1])
    return frames


def test_a_video_shows_each_frame_until_the_next(detector: Detector, samples: list[Sample], tmp_path: Path) -> None:
    run(detector, samples[:2], [open_sink(tmp_path / "a.mp4")])
    first, second = pictures(tmp_path / "a.mp4")  # the rate is that of the first two frames
    for picture, sample in ((first, samples[0]), (second, samples[1])):
        expected = detector.infer_sample(sample).plot()[: picture.shape[0], : picture.shape[1]]
        where = np.s_[60:300, :900]  # the images: the figures beside them hold times
        error = np.abs(picture[where].astype(float) - expected[where])
        assert error.mean() < 8 < np.abs(first[where].astype(float) - second[where]).mean()


def test_a_video_names_the_tracks(detector: Detector, samples: list[Sample], tmp_path: Path) -> None:
    run(detector, samples[:1], [open_sink(tmp_path / "a.mp4")], tracker=Tracker(detector.spec))
    [picture] = pictures(tmp_path / "a.mp4")
    result = Tracker(detector.spec).follow(detector.infer_sample(samples[0]))
    where = np.s_[60:300, :900]  # the images: the figures beside them hold times
    named, nameless = (
        one.plot(samples[0])[where].astype(float) for one in (result, replace(result, tracks=None))
    )  # fmt: skip
    changed = np.abs(named - nameless) > 60
    assert changed.sum() > 100
    error, error_without = (np.abs(picture[where] - other)[changed].mean() for other in (named, nameless))
    assert error < error_without / 2


def test_a_frame_of_another_size_is_fitted_to_the_videos(tmp_path: Path) -> None:
    from imkd_edge.run.video import Video

    class Plotted:
        def __init__(self, shape: tuple[int, int]) -> None:
            self.shape = shape

        def plot(self, sample: Sample) -> np.ndarray:
            return np.full((*self.shape, 3), 200, np.uint8)

    video = Video(tmp_path / "a.mp4")
    for index, shape in enumerate([(121, 161), (60, 300), (300, 60)]):
        video.write(Sample("", index * 10**8, None, {}, []), Plotted(shape))  # type: ignore[arg-type]
    video.close()
    assert [picture.shape for picture in pictures(tmp_path / "a.mp4")] == [(120, 160, 3)] * 3


ENDINGS = (".jsonl", ".mcap", ".mp4", ".rrd")


@pytest.mark.parametrize("ending", ENDINGS)
def test_without_a_frame_an_older_file_stays(ending: str, detector: Detector, tmp_path: Path) -> None:
    old = tmp_path / f"old{ending}"
    old.write_text("precious")
    run(detector, [], open_sinks([old, tmp_path / f"new{ending}"]))
    assert old.read_text() == "precious" and [path.name for path in tmp_path.iterdir()] == [old.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_an_error_and_an_older_file_stays(
    ending: str, detector: Detector, samples: list[Sample], tmp_path: Path
) -> None:
    """Every file is limited to 4 KiB."""
    old = tmp_path / f"old{ending}"
    old.write_text("precious")
    code = f"""
import resource, signal
from pathlib import Path
from imkd_edge import Detector, Error
from imkd_edge.run.loop import run
from imkd_edge.run.sinks import open_sinks
from imkd_edge.sources.synth import SynthSource
samples = list(SynthSource(scenes=1, frames_per_scene=3, image=(240, 135)))
detector = Detector("tiny", samples[0].rig, threads=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    run(detector, samples, open_sinks([Path({str(old)!r})]))
except Error as error:
    print(error.code)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert process.stdout == "E0702\n", process.stderr
    assert old.read_text() == "precious" and [path.name for path in tmp_path.iterdir()] == [old.name]


def test_two_outputs_that_are_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Error, match="two outputs are this file"):
        open_sinks([tmp_path / "a.jsonl", tmp_path / "b" / ".." / "a.jsonl"])
    assert not list(tmp_path.iterdir())


def test_processes_that_write_one_file_do_not_mix_their_lines(
    detector: Detector, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, path = detector.infer_sample(samples[0]), tmp_path / "a.jsonl"
    first = open_sink(path)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    second = open_sink(path)
    for sink in (first, second, first):
        sink.write(samples[0], result)
    first.close()
    assert len(path.read_text().splitlines()) == 2
    second.close()
    assert len(path.read_text().splitlines()) == 1 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["a.avi", "a", "jsonl"])
def test_an_ending_without_a_format_lists_those_there_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"\.jsonl, \.mcap, \.mp4"):
        open_sinks([tmp_path / "first.jsonl", tmp_path / name])
    assert not list(tmp_path.glob(".*"))


def test_a_file_in_a_folder_that_is_a_file_is_refused_before_the_loop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Error, match="cannot be written"):
        open_sink(tmp_path / "file" / "a.jsonl")


class Slow(Sink):
    """Draws only when it is told to."""

    def __init__(self) -> None:
        self.go, self.frames = threading.Event(), 0

    def write(self, sample: Sample, result: Result) -> None:
        self.go.wait(10)
        self.frames += 1

    def close(self) -> None:
        pass


def test_a_lossy_sink_leaves_frames_out_and_counts_them(samples: list[Sample], detector: Detector) -> None:
    result, slow = detector.infer_sample(samples[0]), Slow()
    worker = Worker(slow, lossy=True)
    for _ in range(20):
        worker.write(samples[0], result)
    slow.go.set()
    worker.close()
    assert slow.frames + worker.dropped == 20 and QUEUE <= slow.frames <= QUEUE + 1


def test_a_fault_of_a_sink_reaches_the_loop(samples: list[Sample], detector: Detector) -> None:
    class Full(Slow):
        def write(self, sample: Sample, result: Result) -> None:
            raise Error(Code.write_failed, "the disk is full", "a.mp4", "free space")

    result, worker = detector.infer_sample(samples[0]), Worker(Full(), lossy=False)
    with pytest.raises(Error, match="the disk is full"):
        for _ in range(100):
            worker.write(samples[0], result)
    with pytest.raises(Error, match="the disk is full"):
        worker.close()


def test_percentiles_of_a_list() -> None:
    assert percentiles([]) is None
    assert percentiles(list(range(101))) == {"p50": 50.0, "p99": 99.0, "max": 100.0}
