"""Points of radars: every driver's fields, polar scans, and what their velocities say of themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording import ros
from recording.scenes import events, synth

from imkd_edge.checks.data import check
from imkd_edge.errors import Error
from imkd_edge.rig import SensorRig
from imkd_edge.sources import Sample, open_source
from imkd_edge.sources.recording import RadarTopic, inspect_recording
from imkd_edge.sources.recording.radar import Fields, fields_of, intensity_field, radar_points, velocity_field
from imkd_edge.sources.recording.ros import scan_of
from imkd_edge.sources.recording.topic_map import map_of
from imkd_edge.sources.synth.rig import default_rig

pytestmark = pytest.mark.filterwarnings("ignore:.*no topic map.*")

# driver -> its fields, then the velocity's and its kind, the intensity's and its unit
DRIVERS = {
    "nebula ars548": (
        "x y z azimuth azimuth_std elevation elevation_std range range_std range_rate range_rate_std rcs "
        "measurement_id",
        ("range_rate", "raw"), ("rcs", "rcs_dbsm")),
    "nebula srr520": ("x y z range azimuth range_rate rcs pdh00 pdh01 snr", ("range_rate", "raw"), ("rcs", "rcs_dbsm")),
    "ars548_ros": ("x y z v r RCS azimuth elevation", ("v", "raw"), ("RCS", "rcs_dbsm")),
    "smartmicro": (
        "x y z radial_speed power rcs noise snr azimuth_angle elevation_angle range",
        ("radial_speed", "raw"), ("rcs", "rcs_dbsm")),
    "bosch premium": (
        "x y z normal_x radial_distance radial_velocity azimuth_angle elevation_angle radar_cross_section "
        "signal_noise_ratio", ("radial_velocity", "raw"), ("radar_cross_section", "rcs_dbsm")),
    "bosch general purpose": ("x y z radial_velocity reflected_power", ("radial_velocity", "raw"),
                              ("reflected_power", "magnitude_db")),
    "provizio": (
        "x y z radar_relative_radial_velocity signal_to_noise_ratio ground_relative_radial_velocity",
        ("ground_relative_radial_velocity", "compensated"), ("signal_to_noise_ratio", "snr_db")),
    "hugin": ("x y z doppler power range", ("doppler", "raw"), ("power", "magnitude_db")),
    "nuscenes2mcap": ("x y z dyn_prop id rcs vx vy vx_comp vy_comp", ("vx_comp,vy_comp", "compensated"),
                      ("rcs", "rcs_dbsm")),
    "view-of-delft": ("x y z rcs v_r v_r_compensated time", ("v_r_compensated", "compensated"), ("rcs", "rcs_dbsm")),
}  # fmt: skip


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_fields_of_every_driver_are_known(driver: str) -> None:
    fields, velocity, intensity = DRIVERS[driver]
    assert velocity_field(fields.split()) == velocity
    assert intensity_field(fields.split()) == intensity


def test_a_lidar_is_no_radar() -> None:
    for fields in ("x y z intensity ring time", "x y z rgb", "x y z intensity t reflectivity ring ambient range"):
        assert velocity_field(fields.split()) == ("", "")


def test_points_have_metres_decibels_and_receding_velocities() -> None:
    points = np.zeros(2, [("x", "f8"), ("y", "f4"), ("z", "f4"), ("v", "f4"), ("RCS", "i1")])
    points["x"], points["y"], points["z"], points["v"], points["RCS"] = (3, 4), (1, 2), (0.5, -0.5), (-7, 8), (-12, 5)
    expected = [[3, 1, 0.5, -12, -7], [4, 2, -0.5, 5, 8]]
    np.testing.assert_array_equal(radar_points(points, Fields(), "x"), np.float32(expected))
    flipped = radar_points(points, Fields(sign=-1), "x")
    np.testing.assert_array_equal(flipped[:, 4], [7, -8])
    with pytest.raises(Error, match=r"E0304.*'speed'.*x, y, z, v, RCS"):
        radar_points(points, Fields(velocity="speed"), "x")


def polar() -> np.ndarray:
    """range, azimuth, elevation, velocity, amplitude; NaN elevations of a flat radar among them."""
    return np.array([[10, 0.5, 0.1, -3, 12], [20, -0.25, np.nan, 4, -5], [5, 0, 0, 0, 1]])


def test_a_radar_scan_is_read_as_the_library_reads_it() -> None:
    for little_endian in (True, False):
        for frame in ("r", "radar", "/radar/front"):
            message = ros.scan(1_700_000_000_123_456_789, frame, polar())
            data = ros.STORE.serialize_cdr(message, "radar_msgs/msg/RadarScan", little_endian=little_endian)
            read = scan_of(data)
            assert (read.stamp_ns, read.frame) == (1_700_000_000_123_456_789, frame.lstrip("/"))
            back = ros.STORE.deserialize_cdr(data, "radar_msgs/msg/RadarScan")
            for i, item in enumerate(back.returns):
                for name in read.points.dtype.names or ():
                    np.testing.assert_equal(read.points[name][i], getattr(item, name))


def test_polar_returns_become_metres() -> None:
    data = ros.STORE.serialize_cdr(ros.scan(1, "radar", polar()), "radar_msgs/msg/RadarScan")
    points = radar_points(scan_of(data).points, Fields(), "x")
    r, azimuth, elevation = polar()[:, 0], polar()[:, 1], np.nan_to_num(polar()[:, 2])
    xyz = np.stack(
        [r * np.cos(elevation) * np.cos(azimuth), r * np.cos(elevation) * np.sin(azimuth), r * np.sin(elevation)], 1
    )
    np.testing.assert_allclose(points[:, :3], xyz, rtol=1e-5)
    np.testing.assert_array_equal(points[:, 3:], np.float32(polar()[:, [4, 3]]))


@pytest.mark.parametrize("count", [0, 1, 300])
def test_a_recorded_scan_becomes_a_sweep(count: int, tmp_path: Path) -> None:
    samples = list(synth(frames=2))
    stored = ros.messages(events(samples))
    returns = np.random.default_rng(1).uniform(1, 50, (count, 5))
    returns[:, 1:3] /= 50
    stored = [
        (topic, ros.scan(log_ns, "radar_front", returns), log_ns)
        if topic == "/radar_front/detections" and log_ns > samples[0].timestamp_ns
        else (topic, content, log_ns)
        for topic, content, log_ns in stored
        if topic != "/radar_front/detections" or log_ns > samples[0].timestamp_ns
    ]
    source = open_source(ros.write_bag(tmp_path / "bag", stored))
    sweeps = [sweep for sweep in source["000001"].radar if sweep.radar == "radar_front"]
    assert sweeps and all(sweep.points.shape == (count, 5) for sweep in sweeps)
    for sweep in sweeps:
        np.testing.assert_allclose(np.linalg.norm(sweep.points[:, :3], axis=1), returns[:, 0], rtol=1e-5)


# ---- the kind of velocity ----
def drive(velocity: str, sign: int, tmp_path: Path, speed: float = 8.0) -> tuple[Path, list[Sample]]:
    rig = default_rig((96, 54))
    radars = list(rig.radars)[:2]
    for radar in radars:
        radar.velocity = velocity
    small = SensorRig(cameras=list(rig.cameras)[:1], radars=radars, ground_plane=rig.ground_plane)
    samples = list(synth(frames=3, rig=small, speed=speed))
    stored: list[Any] = []
    for event in events(samples):
        if event.kind == "radar":
            event = replace(event, value=event.value * np.array([1, 1, 1, 1, sign], np.float32))
        stored += ros.messages([event])
    return ros.write_mcap(tmp_path / "drive.mcap", stored), samples


@pytest.mark.parametrize("speed", [8.0, 1.4])
@pytest.mark.parametrize(("velocity", "sign"), [("raw", 1), ("raw", -1), ("compensated", 1)])
def test_returns_of_a_standing_world_tell_the_kind_of_velocity(
    velocity: str, sign: int, speed: float, tmp_path: Path
) -> None:
    path, _ = drive(velocity, sign, tmp_path, speed)
    content = inspect_recording(path, tmp_path / "guess.toml")
    assert not [doubt for doubt in content["doubts"] if "velocity" in doubt]
    assert "return" in content["examples"]["radar_front"]["evidence"]
    source = open_source(path, map=tmp_path / "guess.toml")
    assert {(radar.velocity, radar.sign) for radar in source.topic_map.radars.values()} == {(velocity, sign)}


def test_without_motion_the_kind_of_velocity_is_a_doubt(tmp_path: Path) -> None:
    path = ros.write_mcap(tmp_path / "drive.mcap", ros.messages(events(list(synth(frames=2, speed=0.0)))))
    content = inspect_recording(path)
    assert sum("raw or compensated" in doubt for doubt in content["doubts"]) == 2
    assert "below 1 m/s" in content["examples"]["radar_front"]["evidence"]
    with pytest.warns(UserWarning, match="guessed: radar_front: whether its velocity is raw or compensated"):
        open_source(path)


def unnamed(path: Path) -> Path:
    """A recording whose front radar has fields of a driver that is not known."""
    fields = np.dtype([("track_id", "<f4"), ("r", "<f4"), ("azimuth", "<f4"), ("speed_kmh", "<f4"), ("rcs", "<f4")])
    stored = []
    for topic, content, log in ros.messages(events(list(synth(frames=2)))):
        if topic == "/radar_front/detections":
            content = ros.cloud(log, content.header.frame_id, np.ones(4, fields))
        stored.append((topic, content, log))
    return ros.write_mcap(path, stored)


def test_a_cloud_with_unknown_fields_is_a_doubt_that_names_them(tmp_path: Path) -> None:
    content = inspect_recording(unnamed(tmp_path / "drive.mcap"))
    topic = next(row for row in content["topics"] if row["topic"] == "/radar_front/detections")
    assert topic["use"] == "not used" and "speed_kmh" in topic["content"]
    (doubt,) = [doubt for doubt in content["doubts"] if "/radar_front/detections" in doubt]
    assert "velocity_field" in doubt and "intensity_field" not in doubt and "speed_kmh" in doubt


def test_a_radar_whose_velocity_has_an_unknown_name_is_not_taken_for_a_lidar(tmp_path: Path) -> None:
    fields = np.dtype([(name, "<f4") for name in ("x", "y", "z", "rcs", "vel_r")])
    stored = [
        (topic, ros.cloud(log, content.header.frame_id, np.ones(4, fields)), log) if "detections" in topic else
        (topic, content, log)
        for topic, content, log in ros.messages(events(list(synth(frames=2))))
    ]  # fmt: skip
    path = ros.write_mcap(tmp_path / "drive.mcap", stored)
    content = inspect_recording(path, tmp_path / "guess.toml")
    assert {row["use"] for row in content["topics"] if "detections" in row["topic"]} == {"not used"}
    assert "lidar =" not in content["map"] and len(content["doubts"]) == 2
    report = check(path)
    assert "no rig has a radar" in [finding.what for finding in report.findings]


def test_inspect_reads_the_map_beside_the_recording(tmp_path: Path) -> None:
    path = unnamed(tmp_path / "drive.mcap")
    text = inspect_recording(path, tmp_path / "drive.toml")["map"]
    text += '\n[radars.front]\ntopic = "/radar_front/detections"\nvelocity_field = "speed_kmh"\n'
    text += '\n[radars.gone]\ntopic = "/gone"\n'
    (tmp_path / "drive.toml").write_text(text)
    content = inspect_recording(path)
    uses = {row["topic"]: row["use"] for row in content["topics"]}
    assert uses["/radar_front/detections"] == "radar front" and content["map"] == text
    assert content["map_file"] == str(tmp_path / "drive.toml") and content["doubts"] == [
        "gone: there is no topic /gone"
    ]


def test_the_map_scales_velocities_and_takes_degrees() -> None:
    polar = np.dtype([("r", "<f4"), ("azimuth", "<f4"), ("elevation", "<f4"), ("speed_kmh", "<f4"), ("rcs", "<f4")])
    points = np.array([(10, 90, 0, 36, 3), (10, 0, 30, -18, 4)], polar)
    radar = RadarTopic("/t", velocity_field="speed_kmh", velocity_scale=1 / 3.6, angle="deg", sign=-1)
    expected = [[0, 10, 0, 3, -10], [10 * np.cos(np.pi / 6), 0, 5, 4, 5]]
    assert np.allclose(radar_points(points, fields_of(radar), "here"), expected, atol=1e-5)


@pytest.mark.parametrize(("key", "value"), [("angle", "grad"), ("velocity_scale", 0.0), ("velocity_scale", -0.3)])
def test_a_unit_that_is_none_is_refused(key: str, value: Any) -> None:
    with pytest.raises(Error, match=f"radars.front.{key}"):
        map_of({"radars": {"front": {"topic": "/t", key: value}}}, Path("map.toml"))


@pytest.mark.parametrize("name", ["x", "z", "velocity", "rcs"])
def test_a_field_of_two_values_a_point_is_refused_by_its_name(name: str) -> None:
    fields = [(field, "<f4", (2,)) if field == name else (field, "<f4") for field in ("x", "y", "z", "rcs", "velocity")]
    with pytest.raises(Error, match=rf"E0304.*'{name}' has 2 values a point"):
        radar_points(np.ones(3, np.dtype(fields)), fields_of(RadarTopic("/t")), "here")
