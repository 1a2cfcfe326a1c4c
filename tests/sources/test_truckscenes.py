"""MAN TruckScenes: nuScenes' tables with other sensors, radar fields and categories; and any other sensor names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sources.nuscenes_folder import write_nuscenes

from imkd_edge.sources import Source, open_source
from imkd_edge.sources.convert import convert
from imkd_edge.sources.folder import problems
from imkd_edge.sources.pcd import read_pcd

CHANNELS = {"CAM_FRONT": "CAMERA_LEFT_FRONT", "CAM_BACK": "CAMERA_LEFT_BACK", "LIDAR_TOP": "LIDAR_LEFT"}
CHANNELS["RADAR_FRONT"] = "RADAR_LEFT_FRONT"
RADAR = np.array([[30, 40, 0, -3, -4, 0, 7.5], [0, 0, 5, 1, 1, -2, -3]], "<f4")  # x y z vrel_x vrel_y vrel_z rcs
LIDAR = np.array([[1, 2, 3, 40], [4, 5, 6, 80]], "<f4")


def pack(points: np.ndarray, names: str, compressed: bool = False) -> bytes:
    """A PCD file; compressed with LZF's literal runs only, which any unpacker reads."""
    count, kind = points.shape[1], "binary_compressed" if compressed else "binary"
    head = f"VERSION 0.7\nFIELDS {names}\nSIZE{' 4' * count}\nTYPE{' F' * count}\nCOUNT{' 1' * count}\n"
    head += f"WIDTH {len(points)}\nHEIGHT 1\nPOINTS {len(points)}\nDATA {kind}\n"
    if not compressed:
        return head.encode() + points.tobytes()
    raw = np.ascontiguousarray(points.T).tobytes()
    runs = [raw[i : i + 32] for i in range(0, len(raw), 32)]
    packed = b"".join(bytes([len(run) - 1]) + run for run in runs)
    return head.encode() + np.array([len(packed), len(raw)], "<u4").tobytes() + packed


def rename(folder: Path, channels: dict[str, str]) -> None:
    """Gives the sensors of a nuScenes folder other names."""
    path = folder / "v1.0-mini" / "sensor.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, "channel": channels[row["channel"]]} for row in rows]))


@pytest.fixture
def truckscenes(tmp_path: Path) -> Source:
    folder = write_nuscenes(tmp_path / "truckscenes")
    tables = folder / "v1.0-mini"
    rename(folder, CHANNELS)
    (tables / "ego_motion_chassis.json").write_text("[]")
    for name in ("log", "map"):
        (tables / f"{name}.json").unlink()
    categories = json.loads((tables / "category.json").read_text())
    names = ["vehicle.train", "human.pedestrian.adult", "animal"]
    rows = [{**row, "name": name} for row, name in zip(categories, names)]
    (tables / "category.json").write_text(json.dumps(rows))
    rows = json.loads((tables / "sample_data.json").read_text())
    for row in rows:
        if "RADAR" in row["filename"]:
            (folder / row["filename"]).write_bytes(pack(RADAR, "x y z vrel_x vrel_y vrel_z rcs", compressed=True))
        elif "LIDAR" in row["filename"]:
            row["filename"] = row["filename"].removesuffix(".bin")
            (folder / row["filename"]).write_bytes(pack(LIDAR, "x y z intensity"))
    (tables / "sample_data.json").write_text(json.dumps(rows))
    return open_source(folder)


def test_truckscenes_opens(truckscenes: Source) -> None:
    sample = truckscenes["k0"]
    assert [camera.name for camera in sample.rig.cameras] == ["CAMERA_LEFT_BACK", "CAMERA_LEFT_FRONT"]
    assert [(radar.name, radar.velocity) for radar in sample.rig.radars] == [("RADAR_LEFT_FRONT", "raw")]
    # Along the line of sight: (-3, -4) on (30, 40) is -5, and -2 straight up.
    np.testing.assert_allclose(sample.radar[0].points, [[30, 40, 0, 7.5, -5], [0, 0, 5, -3, -2]], rtol=1e-6)
    assert sample.lidar.shape == (2, 4) and sample.lidar[:, 3].tolist() == [40, 80]
    assert set(truckscenes["k1"].truth.labels) | set(sample.truth.labels) == {"other_vehicle", "pedestrian", "animal"}


def test_truckscenes_becomes_a_drive_folder(truckscenes: Source, tmp_path: Path) -> None:
    convert(truckscenes, tmp_path / "drive")
    assert problems(tmp_path / "drive") == []
    assert open_source(tmp_path / "drive")["k0"].rig.radars[0].velocity == "raw"


def test_sensors_and_categories_may_have_any_name(tmp_path: Path) -> None:
    folder = write_nuscenes(tmp_path / "own")
    rename(folder, {"CAM_FRONT": "front", "CAM_BACK": "rear", "LIDAR_TOP": "roof", "RADAR_FRONT": "bumper"})
    path = folder / "v1.0-mini" / "category.json"
    path.write_text(path.read_text().replace("vehicle.car", "forklift"))
    sample = open_source(folder)["k0"]
    assert sorted(sample.frames) == ["front", "rear"] and {sweep.radar for sweep in sample.radar} == {"bumper"}
    assert sample.lidar is not None and "forklift" in sample.truth.labels and "animal" not in sample.truth.labels


# A literal "ab", then a copy of 9 + 1 bytes from 2 back: it overlaps itself.
LZF = bytes([1]) + b"ab" + bytes([7 << 5, 1, 1])


def test_a_compressed_copy_may_overlap_itself(tmp_path: Path) -> None:
    head = "VERSION 0.7\nFIELDS a\nSIZE 1\nTYPE U\nCOUNT 1\nPOINTS 12\nDATA binary_compressed\n"
    (tmp_path / "a.pcd").write_bytes(head.encode() + np.array([len(LZF), 12], "<u4").tobytes() + LZF)
    assert bytes(read_pcd(tmp_path / "a.pcd", ("a",))["a"]) == b"abababababab"
