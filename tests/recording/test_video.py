"""A folder of videos or images with tables of radars and ego motion: frames are those that were written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from recording.scenes import quaternion, synth

from imkd_edge.errors import Error
from imkd_edge.sources import Sample, open_source
from imkd_edge.sources.recording import VideoSource


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(synth(frames=4, rate_hz=10))


def newest(sample: Sample) -> dict[str, list]:
    """Sweeps by radar, the oldest first."""
    result: dict[str, list] = {}
    for sweep in sorted(sample.radar, key=lambda sweep: sweep.timestamp_ns):
        result.setdefault(sweep.radar, []).append(sweep)
    return result


def write_tables(folder: Path, samples: list[Sample]) -> None:
    """RADAR.csv with one return a row, and ego.csv with poses and twist."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rig.json").write_text(samples[0].rig.to_json())
    sweeps = {(sweep.radar, sweep.timestamp_ns): sweep for sample in samples for sweep in sample.radar}
    for radar in samples[0].rig.radars:
        lines = ["timestamp_ns,x,y,z,intensity,velocity"]
        for (name, time), sweep in sorted(sweeps.items(), key=lambda item: item[0][1]):
            if name == radar.name:
                lines += [f"{time}," + ",".join(f"{value:.9g}" for value in row) for row in sweep.points]
        (folder / f"{radar.name}.csv").write_text("\n".join(lines) + "\n")
    lines = ["timestamp_ns,x,y,z,qw,qx,qy,qz,vx,vy,yaw_rate"]
    for sample in samples:
        T = sample.ego.T_world_ego
        x, y, z, w = quaternion(T[:3, :3])
        numbers = (*T[:3, 3], w, x, y, z, *sample.ego.twist)
        lines.append(f"{sample.timestamp_ns}," + ",".join(repr(float(number)) for number in numbers))
    (folder / "ego.csv").write_text("\n".join(lines) + "\n")


def write_images(folder: Path, samples: list[Sample]) -> None:
    for sample in samples:
        for camera, image in sample.frames.items():
            (folder / camera).mkdir(exist_ok=True)
            cv2.imwrite(f"{folder / camera / str(sample.timestamp_ns)}.png", image[..., ::-1])


def write_videos(folder: Path, samples: list[Sample], fourcc: str, ending: str, tables: bool = True) -> None:
    for camera in samples[0].rig.cameras:
        writer = cv2.VideoWriter(
            f"{folder / camera.name}{ending}", cv2.VideoWriter_fourcc(*fourcc), 10, (camera.width, camera.height)
        )
        assert writer.isOpened()
        for sample in samples:
            writer.write(np.ascontiguousarray(sample.frames[camera.name][..., ::-1]))
        writer.release()
        if tables:
            times = [f"{sample.timestamp_ns}" for sample in samples]
            (folder / f"{camera.name}.csv").write_text("\n".join(["timestamp_ns", *times]) + "\n")


def assert_equal(source: VideoSource, samples: list[Sample], lossy: bool) -> None:
    assert len(source.names) == len(samples)
    for name, sample in zip(source.names, samples, strict=True):
        read = source[name]
        assert read.timestamp_ns == sample.timestamp_ns and set(read.frames) == set(sample.frames)
        for camera, image in sample.frames.items():
            difference = np.abs(read.frames[camera].astype(int) - image)
            assert difference.mean() < 6 if lossy else not difference.any()
        for radar, sweeps in newest(sample).items():
            others = newest(read)[radar][-len(sweeps) :]
            assert [sweep.timestamp_ns for sweep in others] == [sweep.timestamp_ns for sweep in sweeps]
            for sweep, other in zip(sweeps, others):
                np.testing.assert_array_equal(other.points, sweep.points)
        np.testing.assert_allclose(read.ego.T_world_ego, sample.ego.T_world_ego, atol=1e-9)
        np.testing.assert_allclose(read.ego.twist, sample.ego.twist, atol=1e-9)


def test_a_folder_of_images(samples: list[Sample], tmp_path: Path) -> None:
    write_tables(tmp_path, samples)
    write_images(tmp_path, samples)
    source = open_source(tmp_path)
    assert source.kind == "video"
    assert_equal(source, samples, lossy=False)


@pytest.mark.parametrize(
    ("fourcc", "ending", "lossy"), [("mp4v", ".mp4", True), ("MJPG", ".avi", True), ("FFV1", ".mkv", False)]
)
def test_videos(fourcc: str, ending: str, lossy: bool, samples: list[Sample], tmp_path: Path) -> None:
    write_tables(tmp_path, samples)
    write_videos(tmp_path, samples, fourcc, ending)
    assert_equal(open_source(tmp_path), samples, lossy)


def test_frames_of_a_video_are_read_in_any_order(samples: list[Sample], tmp_path: Path) -> None:
    write_tables(tmp_path, samples)
    write_videos(tmp_path, samples, "mp4v", ".mp4")
    source = open_source(tmp_path)
    in_order = [source[name].frames for name in source.names]
    for i in (3, 0, 2, 2, 1):
        for camera, image in source[source.names[i]].frames.items():
            np.testing.assert_array_equal(image, in_order[i][camera])


def test_a_video_without_a_table_has_its_own_times_from_start_ns(samples: list[Sample], tmp_path: Path) -> None:
    write_tables(tmp_path, samples)
    write_videos(tmp_path, samples, "mp4v", ".mp4", tables=False)
    source = open_source(tmp_path, start_ns=samples[0].timestamp_ns)
    assert [source.moment(name)[1] for name in source.names] == [sample.timestamp_ns for sample in samples]
    assert_equal(source, samples, lossy=True)


def test_a_sweep_without_returns_is_a_row_of_nan(samples: list[Sample], tmp_path: Path) -> None:
    write_tables(tmp_path, samples)
    write_images(tmp_path, samples)
    radar = samples[0].rig.radars[0].name
    times = [samples[0].timestamp_ns, samples[1].timestamp_ns]
    rows = [f"{times[0]},1,2,3,4,5", f"{times[0]},2,2,3,4,5", f"{times[1]},nan,nan,nan,nan,nan"]
    (tmp_path / f"{radar}.csv").write_text("\n".join(["timestamp_ns,x,y,z,intensity,velocity", *rows]))
    source = open_source(tmp_path)
    sweeps = [sweep for sweep in source[source.names[1]].radar if sweep.radar == radar]
    assert [(sweep.timestamp_ns, len(sweep.points)) for sweep in sweeps] == [(times[1], 0), (times[0], 2)]


@pytest.mark.parametrize(
    ("file", "text", "code", "part"),
    [
        ("RADAR_FRONT.csv", "time,x\n1,2\n", "E0304", "timestamp_ns"),
        ("RADAR_FRONT.csv", "timestamp_ns,x,y,z,intensity\n1,2,3,4,5\n", "E0304", "velocity"),
        ("RADAR_FRONT.csv", "timestamp_ns,x,y,z,intensity,velocity\n1.5,2,3,4,5,6\n", "E0314", "whole nanoseconds"),
        ("RADAR_FRONT.csv", "timestamp_ns,x,y,z,intensity,velocity\n2,2,3,4,5,6\n1,2,3,4,5,6\n", "E0314", "in order"),
        ("ego.csv", f"timestamp_ns,vx,vy,yaw_rate\n{2**63},1,0,0\n", "E0314", "whole nanoseconds"),
        ("ego.csv", "timestamp_ns,x,y,z,qw,qx,qy,qz\n1,0,0,0,0,0,0,0\n", "E0311", "quaternion"),
    ],
)
def test_a_faulty_table_is_refused_with_its_file(
    samples: list[Sample], file: str, text: str, code: str, part: str, tmp_path: Path
) -> None:
    write_tables(tmp_path, samples)
    write_images(tmp_path, samples)
    (tmp_path / file).write_text(text)
    with pytest.raises(Error) as caught:
        open_source(tmp_path)
    assert part in str(caught.value) and file in str(caught.value)
    assert caught.value.code == code


def test_a_cut_video_and_an_image_without_a_time_are_refused(samples: list[Sample], tmp_path: Path) -> None:
    write_tables(tmp_path, samples)
    write_videos(tmp_path, samples, "mp4v", ".mp4")
    video = tmp_path / f"{samples[0].rig.cameras[0].name}.mp4"
    video.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(Error, match="cannot open the video"):
        open_source(tmp_path)
    folder = tmp_path / "images"
    write_tables(folder, samples)
    write_images(folder, samples)
    camera = folder / samples[0].rig.cameras[0].name
    image = next(camera.iterdir())
    for name in ("first.png", f"{2**63}.png", "\u0663.png"):
        image = image.rename(camera / name)
        with pytest.raises(Error, match=rf"'{name}' is no time"):
            open_source(folder)
