"""The overview picture: its content and layout, and that its file is written completely."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers import random_spec
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.result import Health, Result
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.view import draw
from imkd_edge.view.draw import bev, maps
from imkd_edge.view.draw.camera import draw_camera
from imkd_edge.view.draw.canvas import DARK, Canvas, class_color, ramp
from imkd_edge.view.draw.font import text_mask
from imkd_edge.view.draw.layout import camera_rectangles, camera_rows

LOOKING_FORWARD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]], float)
STAGES = {
    "preprocess": 900.0,
    "camera": 9000.0,
    "lift": 700.0,
    "radar": 150.0,
    "warp": 0.0,
    "bev": 8000.0,
    "decode": 60.0,
}


def rig(count: int, size: tuple[int, int] = (320, 180)) -> SensorRig:
    K = np.array([[250, 0, size[0] / 2 - 0.5], [0, 250, size[1] / 2 - 0.5], [0, 0, 1]], float)
    cameras = [
        CameraCalibration(name=f"cam{i}", width=size[0], height=size[1], K=K, T_ego_camera=LOOKING_FORWARD)
        for i in range(count)
    ]
    return SensorRig(cameras=cameras, radars=[RadarCalibration(name="radar", T_ego_radar=np.eye(4))])


def sample(sensors: SensorRig, boxes: np.ndarray, points: np.ndarray | None = None) -> Sample:
    truth = Truth(boxes, ["car"] * len(boxes), *(np.zeros(len(boxes), kind) for kind in (np.int8, np.int32, np.int32)))
    frames = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in sensors.cameras}
    sweep = RadarSweep("radar", np.zeros((0, 5), np.float32) if points is None else points.astype(np.float32))
    return Sample("000001", 0, sensors, frames, [sweep], truth=truth)


def result(boxes: np.ndarray, mode: str = "full", sensors: dict[str, str] | None = None) -> Result:
    health = Health(mode, sensors or {"cam0": "ok", "radar": "ok"}, 0, 0, 0, 0, 0, "none", False, 0.0, 0.0, 0)
    count = len(boxes)
    scores, labels = np.full(count, 0.9, np.float32), np.zeros(count, np.int32)
    return Result(
        0, boxes.astype(np.float32), scores, labels, ("car", "pedestrian"), health, STAGES, sum(STAGES.values())
    )


ONE_CAR = np.array([[20, 0, 0.8, 4.5, 1.9, 1.6, 0.3, 5, 0]], float)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_any_number_of_cameras_makes_a_legible_picture(count: int, theme: str) -> None:
    sensors = rig(count)
    picture = draw.overview(sample(sensors, ONE_CAR), result(ONE_CAR), random_spec(count), "random", theme)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert 500 <= picture.shape[0] <= 1400 and 1000 <= picture.shape[1] <= 2300
    assert (np.abs(picture.astype(int) - class_color("car")).sum(2) < 12).sum() > 50  # the detection's colour is there


def test_a_wide_image_is_above_the_view() -> None:
    sensors = rig(1, (1024, 309))
    picture = draw.overview(sample(sensors, ONE_CAR), result(ONE_CAR), random_spec(1))
    assert picture.shape[1] == 1400 and picture.shape[0] > 900


HALVES = np.repeat(np.float32([[0.3, 0.7]]), 32, 1).repeat(64, 0)  # (64, 64), far from 0 and 1
GATES = {"i_cam": HALVES, "i_rad": HALVES}


@pytest.mark.parametrize("size", [(320, 180), (1024, 309)])
def test_gates_and_segmentation_are_below_the_view(size: tuple[int, int]) -> None:
    frame, detections = sample(rig(1, size), ONE_CAR), result(ONE_CAR)
    plain = draw.overview(frame, detections, random_spec(1))
    segmentation = {"segmentation": (HALVES > 0.5).astype(np.float32)}
    for more in ({"debug": GATES}, segmentation, {"debug": GATES, **segmentation}):
        picture = draw.overview(frame, replace(detections, **more), random_spec(1))
        assert picture.shape[1] == plain.shape[1] and picture.shape[0] > plain.shape[0] + 200
        assert np.array_equal(picture[: plain.shape[0] - draw.MARGIN], plain[: -draw.MARGIN])
        for end in (maps.SCALE[0], maps.SCALE[-1]):  # 0.3 and 0.7 are the ends of a gate's scale
            share = (np.abs(picture[plain.shape[0] :].astype(int) - end).sum(2) < 6).mean()
            assert share > 0.1


def test_a_probability_keeps_its_scale_and_a_gate_shows_its_range() -> None:
    values = np.linspace(0.4, 0.5, 101)
    assert maps.scale_of("segmentation", values) == (0, 1)
    np.testing.assert_allclose(maps.scale_of("i_cam", values), (0.401, 0.499))
    np.testing.assert_allclose(maps.scale_of("i_cam", np.full(9, 0.5)), (0.5, 0.5 + maps.MIN_SPAN))
    assert maps.scale_of("i_cam", np.full(9, np.nan)) == (0, 1)


@pytest.mark.parametrize("forward_right", [False, True])
def test_a_cell_of_a_map_is_drawn_at_its_position(forward_right: bool) -> None:
    """The cell 40 m ahead and 24 m to the left is bright: up and left, or right and up."""
    spec = random_spec(1)
    values = np.zeros((64, 64), np.float32)
    values[(24 + 51) * 10 // 16, (40 + 51) * 10 // 16] = 1
    canvas = Canvas(256, 256 + maps.HEAD, DARK.panel)
    maps.draw_maps(
        canvas, {"i_cam": values}, 256, spec.grid, bev.Extent(-51.2, 51.2, -51.2, 51.2), forward_right, [], DARK
    )
    bright = np.argwhere(np.abs(canvas.picture()[maps.HEAD :].astype(int) - maps.SCALE[-1]).sum(2) < 60)
    across, ahead = 128 - 24 * 2.5, 40 * 2.5  # 2.5 px per metre
    expected = (across, 128 + ahead) if forward_right else (128 - ahead, across)
    assert len(bright) >= 9 and np.abs(bright.mean(0) - expected).max() < 3


def test_no_sensor_and_no_result_still_make_a_picture() -> None:
    empty = replace(sample(rig(6), np.zeros((0, 9))), frames={}, radar=[], truth=None)
    assert draw.overview(empty, None, random_spec()).any()


def test_a_result_without_boxes_and_with_dead_sensors_is_drawn() -> None:
    states = {f"cam{i}": "missing" for i in range(6)} | {"radar": "stale"}
    assert draw.overview(sample(rig(6), ONE_CAR), result(np.zeros((0, 9)), "blind", states), random_spec()).any()


def test_unknown_and_infinite_numbers_do_not_stop_the_drawing() -> None:
    boxes = np.array([[20, 0, 1, 4, 2, 2, 0, np.nan, np.nan], [1e6, 1e6, 0, 4, 2, 2, 0, 0, 0]], float)
    points = np.array([[np.nan, 0, 0, 0, 0], [5, 5, 0, np.inf, np.nan], [1e9, 0, 0, 0, 0]])
    assert draw.overview(sample(rig(6), boxes, points), result(boxes), random_spec()).any()


@pytest.mark.parametrize("size", [(320, 180), (1024, 309)])
def test_a_model_without_velocity_has_no_arrow_in_the_legend(size, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    draw_text = Canvas.text

    def record(canvas: Canvas, x: float, y: float, text: str, *args, **options) -> float:
        texts.append(text)
        return draw_text(canvas, x, y, text, *args, **options)

    monkeypatch.setattr(Canvas, "text", record)
    for boxes, expected in ((ONE_CAR, True), (np.where(np.arange(9) > 6, np.nan, ONE_CAR), False)):
        texts.clear()
        draw.overview(sample(rig(1, size), ONE_CAR), result(boxes), random_spec(1))
        assert ("velocity, 1 s" in texts) == expected and "ground truth" in texts and "Legend" in texts


def test_forward_is_up_or_right() -> None:
    extent = bev.Extent(-50, 50, -50, 50)
    canvas = Canvas(200, 200, DARK.panel)
    ahead, left = np.array([[10.0, 0.0]]), np.array([[0.0, 10.0]])
    up, right = bev.View(canvas, extent, False), bev.View(canvas, extent, True)
    np.testing.assert_allclose(up(ahead)[0], [100, 80])
    np.testing.assert_allclose(up(left)[0], [80, 100])
    np.testing.assert_allclose(right(ahead)[0], [120, 100])
    np.testing.assert_allclose(right(left)[0], [100, 80])


def returns_of(sensors: SensorRig, sweep: RadarSweep, ego: Ego | None = None) -> bev.Returns:
    sample = Sample("0", 10**9, sensors, {}, [sweep], ego)
    return bev.radar_returns(sample, sample.motion())


def test_old_sweeps_are_transformed_to_the_reference_pose() -> None:
    """The vehicle has driven 3 m since the sweep: a post 10 m ahead then is 7 m ahead now."""
    then, now = np.eye(4), np.eye(4)
    now[0, 3] = 3
    sensors = rig(1)
    sweep = RadarSweep("radar", np.array([[10, 0, 0, 5, -1]], np.float32), 10**9 - 150_000_000, then)
    returns = returns_of(sensors, sweep, Ego(T_world_ego=now))
    np.testing.assert_allclose(returns.points, [[7, 0, 0]])
    assert returns.is_velocity and returns.value[0] == -1


def test_an_aliased_radar_is_coloured_by_intensity() -> None:
    radar = RadarCalibration(name="radar", T_ego_radar=np.eye(4), velocity="aliased", period=10.0)
    sensors = SensorRig(cameras=list(rig(1).cameras), radars=[radar])
    returns = returns_of(sensors, RadarSweep("radar", np.array([[1, 2, 0, 55, 3]], np.float32)))
    assert not returns.is_velocity and returns.value[0] == 55


def test_the_ramp_interpolates_between_its_stops() -> None:
    colors = ramp(np.array([-1, 0, 0.5, 1, 2, np.nan]), [(0, 0, 0), (100, 50, 20), (200, 0, 0)])
    np.testing.assert_array_equal(colors, [[0, 0, 0], [0, 0, 0], [100, 50, 20], [200, 0, 0], [200, 0, 0], [0, 0, 0]])


def test_a_window_clips_what_is_drawn_in_it() -> None:
    canvas = Canvas(40, 40, (0, 0, 0))
    canvas.window(10, 10, 20, 20).fill(np.array([[-50, -50], [90, -50], [90, 90], [-50, 90]]), (255, 255, 255), 0.5)
    picture = canvas.picture()
    assert picture[10:30, 10:30].min() > 100
    picture[10:30, 10:30] = 0
    assert not picture.any()


def test_the_png_is_the_picture(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    draw.write_png(tmp_path / "a.png", picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[:, :, ::-1], picture)


def looking(azimuth: float, size: tuple[int, int] = (320, 180)) -> CameraCalibration:
    """A camera that looks `azimuth` degrees to the left of forward."""
    turn, angle = np.eye(4), np.deg2rad(azimuth)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    K = np.array([[250, 0, size[0] / 2 - 0.5], [0, 250, size[1] / 2 - 0.5], [0, 0, 1]], float)
    name = f"{azimuth:+.0f}"
    return CameraCalibration(name=name, width=size[0], height=size[1], K=K, T_ego_camera=turn @ LOOKING_FORWARD)


@pytest.mark.parametrize(
    ("azimuths", "rows"),
    [
        ([0, -55, 55, 180, 110, -110], [[2, 0, 1], [4, 3, 5]]),  # nuScenes: the back row as seen from the driver's seat
        ([-30, 30], [[1, 0]]),
        ([180, 0], [[1], [0]]),
        ([90, -90, 0], [[0, 2, 1]]),
        ([-50, -30, -10, 10, 30, 50], [[5, 4, 3], [2, 1, 0]]),
        ([170, -170], [[0, 1]]),
    ],
)
def test_images_lie_from_left_to_right(azimuths: list[float], rows: list[list[int]]) -> None:
    assert camera_rows([looking(azimuth) for azimuth in azimuths]) == rows


@pytest.mark.parametrize("count", range(1, 9))
def test_every_image_keeps_its_proportions_and_covers_no_other(count: int) -> None:
    sizes = [(640, 480), (1920, 1080), (480, 640), (1024, 309)]
    cameras = [looking(360 * index / count, sizes[index % 4]) for index in range(count)]
    rectangles, height = camera_rectangles(cameras, 1180, 600, 6)
    assert sorted(rectangles) == list(range(count)) and height <= 600
    covered = np.zeros((height, 1180), int)
    for index, part in rectangles.items():
        assert part.width / part.height == pytest.approx(cameras[index].width / cameras[index].height, rel=0.02)
        window = covered[part.y : part.y + part.height, part.x : part.x + part.width]
        assert window.shape == (part.height, part.width)
        window += 1
    assert covered.max() == 1


def test_a_radar_return_is_drawn_at_its_pixel_of_the_image() -> None:
    """20 m ahead, 2 m to the left and at the camera's height: 250 px * 2 / 20 left of the middle of 320 x 180 px."""
    canvas, lens = Canvas(320, 180, DARK.panel), looking(0)
    points = np.array([[20, 2, 1.5], [-20, 2, 1.5], [np.nan, 0, 0]])  # the second is behind the camera
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    draw_camera(canvas, lens, np.zeros((180, 320, 3), np.uint8), (points, colors), [], [], DARK)
    picture = canvas.picture().astype(int)
    red = np.argwhere(picture[:, :, 0] - picture[:, :, 1] > 100)
    np.testing.assert_allclose(red.mean(0), [89.5, 159.5 - 25], atol=0.6)
    assert not (picture[:, :, 1:].max(2) - picture[:, :, 0] > 100).any()


def test_labels_in_an_image_do_not_cover_each_other() -> None:
    boxes = np.array([[20 + i % 5 * 0.4, i % 7 * 0.5 - 1.5, 1, 4, 2, 1.5, 0, 0, 0] for i in range(35)], float)
    shapes = [(box, (0, 255, 0), f"car {index}") for index, box in enumerate(boxes)]
    drawn: list[tuple[float, float, float, float]] = []

    class Recorder(Canvas):
        def text(self, x, y, text, *rest, **named):  # type: ignore[no-untyped-def]
            width = super().text(x, y, text, *rest, **named)
            drawn.append((x, y - 11, x + width, y))
            return width

    draw_camera(Recorder(640, 360, DARK.panel), looking(0), None, no_returns(), [], shapes, DARK)
    assert len(drawn) > 4
    for index, (x0, y0, x1, y1) in enumerate(drawn):
        assert not any(x0 < u1 and u0 < x1 and y0 < v1 and v0 < y1 for u0, v0, u1, v1 in drawn[:index])


def no_returns() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)


def test_names_beyond_ascii_have_glyphs() -> None:
    """In DejaVu, or any other font of the machine; without one the letter under the accent is written."""
    for text, plain in (("é", "e"), ("Å", "A")):
        assert text_mask(text, 24, False).coverage.any()
        assert text_mask(text, 24, False).advance >= 0.9 * text_mask(plain, 24, False).advance
    assert text_mask("\ue123\uffff", 24, False).coverage.any()  # no font has it


def test_text_at_the_edge_is_cut() -> None:
    canvas = Canvas(20, 10, (0, 0, 0))
    for x, y in ((-30.0, 4.0), (15.0, 30.0), (-5.0, -2.0), (50.0, 5.0)):
        canvas.text(x, y, "forklift", (255, 255, 255))
    assert canvas.picture().shape == (10, 20, 3)


def test_dots_are_at_their_pixels_and_later_ones_above() -> None:
    canvas = Canvas(20, 20, (0, 0, 0))
    points = np.array([[5.5, 5.5], [5.5, 5.5], [-100, 3], [np.nan, 2], [19.9, 19.9]])
    canvas.dots(points, np.array([[255, 0, 0], [0, 255, 0], [9, 9, 9], [9, 9, 9], [0, 0, 255]], np.uint8), 1.0)
    picture = canvas.picture()
    assert picture[5, 5, 1] > 200 and picture[5, 5, 0] == 0 and picture[19, 19, 2] > 100
    assert not picture[10:15].any()
