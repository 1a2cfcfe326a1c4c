"""Topics of compressed video: every picture is the one that was encoded, in any order, and what is lost is said."""

from __future__ import annotations

import multiprocessing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import foxglove.messages as fg
import numpy as np
import pytest
from recording import foxglove_file as fox
from recording import ros
from recording.scenes import events, synth

from imkd_edge.errors import Error
from imkd_edge.sources import Sample, open_source
from imkd_edge.sources.recording.messages import ImageMessage
from imkd_edge.sources.recording.packets import PacketVideo, is_key, video_format

pytestmark = pytest.mark.filterwarnings("ignore:.*no topic map.*")
HEIGHT, WIDTH, COUNT, DISTANCE = 90, 160, 12, 5  # DISTANCE: pictures from one key frame to the next
ENCODERS = {
    "h264": ("libx264", {"qp": "0", "tune": "zerolatency"}),
    "h265": (
        "libx265",
        {"x265-params": f"lossless=1:bframes=0:keyint={DISTANCE}:min-keyint={DISTANCE}:log-level=none"},
    ),
}


def encode(frames: list[np.ndarray], form: str = "h264", distance: int = DISTANCE) -> list[bytes]:
    """The packets of grey frames, (H, W) uint8 luma each, without loss."""
    name, options = ENCODERS[form]
    codec: Any = av.CodecContext.create(name, "w")
    codec.height, codec.width = frames[0].shape
    codec.pix_fmt, codec.time_base, codec.gop_size, codec.max_b_frames = "yuv420p", Fraction(1, 10), distance, 0
    codec.options, packets = options, []
    for number, luma in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(np.vstack([luma, np.full_like(luma[::2], 128)]), "yuv420p")
        picture.pts = number
        packets += codec.encode(picture)
    return [bytes(packet) for packet in packets + codec.encode(None)]


def rgb_of(luma: np.ndarray) -> np.ndarray:
    """BT.601, studio swing, without colour."""
    return np.clip((luma[..., None].astype(float) - 16) * 255 / 219, 0, 255).repeat(3, -1)


def scene(seed: int = 0) -> list[np.ndarray]:
    """Luma whose blocks change one by one."""
    random = np.random.default_rng(seed)
    frames = [random.integers(16, 236, (HEIGHT // 2, WIDTH // 2), np.uint8).repeat(2, 0).repeat(2, 1)]
    for number in range(1, COUNT):
        frames.append(frames[-1].copy())
        frames[-1][(number * 16) % 80 :][:16, (number * 32) % 128 :][:, :20] = random.integers(16, 236)
    return frames


def video(packets: list[bytes], form: str = "h264") -> PacketVideo:
    return PacketVideo(lambda n: ImageMessage(n, "camera", form, packets[n], packet=True), "drive.mcap, /camera")


def assert_shows(picture: np.ndarray, luma: np.ndarray) -> None:
    assert picture.shape == (*luma.shape, 3) and picture.dtype == np.uint8
    np.testing.assert_allclose(picture, rgb_of(luma), atol=1.01)


@pytest.mark.parametrize("form", ENCODERS)
@pytest.mark.parametrize("order", [list(range(COUNT)), list(range(COUNT))[::-1], [4, 5, 4, 11, 0, 0, 8, 10, 3]])
def test_a_picture_is_the_one_that_was_encoded_in_whatever_order_it_is_read(order: list[int], form: str) -> None:
    frames = scene()
    pictures = video(encode(frames, form), form)
    for number in order:
        assert_shows(pictures.read(number), frames[number])


def test_pictures_in_their_order_are_decoded_once_and_a_jump_begins_at_the_key_frame_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames, decoded = scene(), []
    pictures, decode = video(encode(frames)), PacketVideo._decode
    monkeypatch.setattr(PacketVideo, "_decode", lambda self, codec: decoded.append(self._next) or decode(self, codec))
    for number in (0, 1, 2, 3, 4, 5, 6, 11, 6):
        pictures.read(number)
    assert decoded == [0, 1, 2, 3, 4, 5, 6, 10, 11, 5, 6]


def test_a_forked_child_and_its_parent_both_go_on_reading() -> None:
    frames = scene()
    pictures = video(encode(frames, distance=100))
    pictures.read(3)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put([pictures.read(number) for number in (4, 5, 6)]))
    child.start()
    ours, theirs = [pictures.read(number) for number in (4, 5, 6)], queue.get(timeout=60)
    child.join()
    np.testing.assert_array_equal(ours, theirs)
    assert_shows(ours[2], frames[6])


def test_pictures_before_the_first_key_frame_are_refused_and_those_behind_it_are_read() -> None:
    frames = scene()
    pictures = video(encode(frames)[2:])
    with pytest.raises(Error, match="no key frame") as error:
        pictures.read(2)
    assert error.value.code == "E0303" and error.value.where == "drive.mcap, /camera"
    assert_shows(pictures.read(4), frames[6])


@pytest.mark.parametrize("damaged", [5, 7])
def test_pictures_behind_a_damaged_packet_are_refused_up_to_the_next_key_frame(damaged: int) -> None:
    frames = scene()  # of H.264: FFmpeg decodes half a packet of H.265 without a complaint
    packets = encode(frames)
    packets[damaged] = packets[damaged][: len(packets[damaged]) // 2]
    pictures = video(packets)
    for number in range(COUNT):
        if damaged <= number < 10:
            with pytest.raises(Error) as error:
                pictures.read(number)
            assert error.value.code == "E0303"
        else:
            assert_shows(pictures.read(number), frames[number])


def test_another_format_is_refused_by_its_name() -> None:
    pictures = PacketVideo(lambda _: ImageMessage(0, "", "av1", b"", packet=True), "x")
    with pytest.raises(Error, match=r"'av1'.*h264 or h265"):
        pictures.read(0)


@pytest.mark.parametrize(
    ("name", "form"),
    [("h264", "h264"), ("libx264; yuv420p", "h264"), ("HEVC", "h265"), ("h265", "h265"), ("vp9", "vp9")],
)
def test_formats_by_their_names(name: str, form: str) -> None:
    assert video_format(name) == form


def test_key_frames_are_known_by_the_types_of_their_units() -> None:
    """H.264 table 7-1: the lowest five bits of a unit's first byte; H.265 table 7-1: the six bits above the lowest."""
    assert is_key(b"\0\0\0\1\x67\x42\0\0\1\x65\x88", "h264") and not is_key(b"\0\0\0\1\x41\x9a", "h264")
    delimiter = b"\0\0\0\1\x46\x01"
    assert is_key(delimiter + b"\0\0\1\x26\x01", "h265") and is_key(b"\0\0\1\x40\x01", "h265")
    assert not is_key(delimiter + b"\0\0\1\x02\x01", "h265") and not is_key(b"", "h264")


# ---- recordings ----
FFMPEG = "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
FFMPEG += "bool is_bigendian\nuint8[] data\n"
FOXGLOVE = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"


def foxglove_video(time_ns: int, frame: str, data: bytes) -> Any:
    return fg.CompressedVideo(timestamp=fox.stamp(time_ns), frame_id=frame, data=data, format="h264")


def ros_image(time_ns: int, frame: str, data: bytes) -> Any:
    content = {"format": "h264", "data": np.frombuffer(data, np.uint8)}
    return ros.message("sensor_msgs/msg/CompressedImage", header=ros.header(time_ns, frame), **content)


def ros_packet(time_ns: int, frame: str, data: bytes) -> Any:
    content = {"encoding": "libx264", "pts": 0, "flags": 0, "is_bigendian": False, "width": 0, "height": 0}
    kind = registered("ffmpeg_image_transport_msgs/msg/FFMPEGPacket", FFMPEG)
    return ros.message(kind, header=ros.header(time_ns, frame), data=np.frombuffer(data, np.uint8), **content)


def ros_foxglove(time_ns: int, frame: str, data: bytes) -> Any:
    kind, stamp = registered("foxglove_msgs/msg/CompressedVideo", FOXGLOVE), ros.header(time_ns, frame).stamp
    return ros.message(kind, timestamp=stamp, frame_id=frame, data=np.frombuffer(data, np.uint8), format="h264")


def registered(kind: str, definition: str) -> str:
    if kind not in ros.STORE.types:
        ros.STORE.register(ros.get_types_from_msg(definition, kind))
    return kind


@pytest.mark.parametrize("make", [foxglove_video, ros_image, ros_packet, ros_foxglove])
def test_a_recording_of_video_gives_the_pictures_of_its_cameras(make: Any, tmp_path: Path) -> None:
    samples: list[Sample] = list(synth())
    lumas = {camera: [grey(sample.frames[camera]) for sample in samples] for camera in samples[0].frames}
    stored = {camera.lower(): iter(encode(luma, distance=2)) for camera, luma in lumas.items()}

    def make_image(time_ns: int, frame: str, pixels: np.ndarray) -> Any:
        return make(time_ns, frame, next(stored[frame.removesuffix("_optical")]))

    if make is foxglove_video:
        source = open_source(fox.write(tmp_path / "drive.mcap", events(samples), make_image))
    else:
        source = open_source(ros.write_bag(tmp_path / "drive", ros.messages(events(samples), make_image)))
    assert len(source) == len(samples) >= 3
    for number in (2, 0, 1):
        frames = source[source.names[number]].frames
        assert len(frames) == len(lumas)
        for camera, luma in lumas.items():
            assert luma[number].std() > 20
            assert_shows(frames[camera.lower()], luma[number])


def grey(pixels: np.ndarray) -> np.ndarray:
    return np.round(16 + pixels[..., 1].astype(float) * 219 / 255).astype(np.uint8)
