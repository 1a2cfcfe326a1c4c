"""SensorRig: strict JSON, checked geometry, a hash that follows every number."""

import copy
import hashlib
import json
import pickle
from collections.abc import Iterator
from functools import reduce
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest

from imkd_edge import Error, SensorRig
from imkd_edge.rig import CameraCalibration, RadarCalibration, orthonormalised

K = np.array([[500.0, 0.5, 320], [0, 510, 240], [0, 0, 1]])
T = np.array([[0.0, 0, 1, 1.5], [-1, 0, 0, 0.25], [0, -1, 0, 1.75], [0, 0, 0, 1]])
FISHEYE = (0.01, 0.02, 0.03, 0.04)


def make_rig() -> SensorRig:
    lens = {"distortion": "plumb_bob", "coefficients": (0.1, 0.2, 0.3, 0.4, 0.5)}
    return SensorRig(
        cameras=[
            CameraCalibration(name="front", width=640, height=480, K=K, T_ego_camera=T),
            CameraCalibration(name="back", width=320, height=240, K=K, T_ego_camera=T, **lens),
        ],
        radars=[
            RadarCalibration(name="radar", T_ego_radar=np.eye(4)),
            RadarCalibration(name="rear", T_ego_radar=T, velocity="aliased", period=10.39),
        ],
    )


def document() -> dict[str, Any]:
    return json.loads(make_rig().to_json())


Path = tuple[str | int, ...]


def at(node: Any, path: Path) -> Any:
    return reduce(lambda part, key: part[key], path, node)


def put(path: Path, value: Any, **also: Any) -> dict[str, Any]:
    doc = document()
    at(doc, path[:-1])[path[-1]] = value
    at(doc, path[:-1]).update(also) if also else None
    return doc


def leaves(node: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, (*path, key))
    else:
        yield path


# Fields that cannot change alone, or not by adding to a number.
TOGETHER = {
    ("cameras", 0, "name"): ("left", {}),
    ("cameras", 1, "name"): ("left", {}),
    ("cameras", 0, "distortion"): ("fisheye", {"coefficients": list(FISHEYE)}),
    ("cameras", 1, "distortion"): ("none", {"coefficients": []}),
    ("radars", 0, "name"): ("left", {}),
    ("radars", 1, "name"): ("left", {}),
    ("radars", 0, "velocity"): ("raw", {}),
    ("radars", 1, "velocity"): ("compensated", {"period": 0.0}),
    ("radars", 0, "period"): (5.0, {"velocity": "aliased"}),
}
FIXED = [("K", 1, 0), ("K", 2, 0), ("K", 2, 1), ("K", 2, 2)]  # zeros and the one of an upper triangular matrix


def changeable(path: Path) -> bool:
    rotation_or_last_row = path[2] in ("T_ego_camera", "T_ego_radar") and (path[4] != 3 or path[3] == 3)
    return path[2:] not in FIXED and not rotation_or_last_row


FIELDS = [path for path in leaves(document()) if changeable(path)]


@pytest.mark.parametrize("path", FIELDS, ids=lambda p: ".".join(map(str, p)))
def test_each_field_survives_the_round_trip_and_changes_the_hash(path: Path) -> None:
    old = at(document(), path)
    value, also = TOGETHER.get(path, (old + 1 if not isinstance(old, str) else None, {}))
    doc, original = put(path, value, **also), make_rig()
    rig = SensorRig.from_json(json.dumps(doc))
    assert json.loads(rig.to_json()) == doc and rig != original
    assert rig.hash() != original.hash() and SensorRig.from_json(rig.to_json()).hash() == rig.hash()


@pytest.mark.parametrize("angle", [0.1, -2.0, np.pi])
def test_a_rotation_survives_to_the_last_bit(angle: float) -> None:
    rig, turn = make_rig(), np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    rig.cameras[0].T_ego_camera = turn @ T
    assert np.array_equal(SensorRig.from_json(rig.to_json()).cameras[0].T_ego_camera, turn @ T)
    assert rig.hash() != make_rig().hash()


def turned(seed: int) -> np.ndarray:
    """A transform with a random rotation."""
    result = np.eye(4)
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    result[:3, :3] = Q * np.sign(np.linalg.det(Q))
    result[:3, 3] = (1.5, 0.25, 1.75)
    return result


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("digits", [3, 4, 5])
def test_a_rotation_of_few_decimals_becomes_the_nearest_rotation(seed: int, digits: int) -> None:
    rounded = np.round(turned(seed), digits)
    R = rounded[:3, :3]
    if np.abs(R.T @ R - np.eye(3)).max() > 1e-3:  # of three decimals some
        return
    U, _, Vt = np.linalg.svd(R)  # the polar factor is U Vt
    doc = put(("cameras", 0, "T_ego_camera"), rounded.tolist())
    doc["radars"][0]["T_ego_radar"] = rounded.tolist()
    rig = SensorRig.from_json(json.dumps(doc))
    built = SensorRig(radars=[RadarCalibration(name="r", T_ego_radar=rounded)])
    for T_read in (rig.cameras[0].T_ego_camera, rig.radars[0].T_ego_radar, built.radars[0].T_ego_radar):
        exact = np.abs(R.T @ R - np.eye(3)).max() <= 1e-6
        assert np.allclose(T_read[:3, :3], R if exact else U @ Vt, rtol=0, atol=1e-14)
        assert np.array_equal(T_read[:, 3], rounded[:, 3]) and T_read[3].tolist() == [0, 0, 0, 1]
    again = SensorRig.from_json(rig.to_json())
    assert again == rig and again.hash() == rig.hash()
    assert np.array_equal(orthonormalised(rounded), rig.cameras[0].T_ego_camera)


@pytest.mark.parametrize(("off", "accepted"), [(0.9e-3, True), (-0.9e-3, True), (1.1e-3, False), (-1.1e-3, False)])
def test_the_limit_of_a_rotation_is_a_thousandth_and_the_error_says_by_how_much(off: float, accepted: bool) -> None:
    bad = turned(3)
    bad[:3, 0] *= np.sqrt(1 + off)  # (R^T R - I)[0, 0] is off
    if accepted:
        R = orthonormalised(bad)[:3, :3]
        assert np.allclose(R.T @ R, np.eye(3), rtol=0, atol=1e-15)
        return
    with pytest.raises(Error) as caught:
        SensorRig(radars=[RadarCalibration(name="r", T_ego_radar=bad)])
    error = caught.value
    assert (error.code, error.where) == ("E0215", "radars[0].T_ego_radar") and "orthonormalise it" in error.fix
    assert "is 0.0011, allowed is 0.001" in error.what


def test_a_mirrored_frame_is_named() -> None:
    with pytest.raises(Error, match=r"E0215.*determinant -1: a mirrored frame.*reverse one axis"):
        orthonormalised(turned(1) @ np.diag([1.0, -1, 1, 1]))


def test_the_hash_is_that_of_the_canonical_text() -> None:
    text = make_rig().to_json()
    assert make_rig().hash() == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert json.loads(text) == json.loads(json.dumps(json.loads(text), sort_keys=True)) and text.endswith("}\n")


def test_the_order_of_sensors_is_kept_and_matters() -> None:
    doc = document()
    doc["cameras"].reverse()
    rig = SensorRig.from_json(json.dumps(doc))
    assert [c.name for c in rig.cameras] == ["back", "front"] and rig.hash() != make_rig().hash()
    assert (rig.camera_index("front"), rig.camera_index("radar"), rig.radar_index("rear")) == (1, -1, 1)


def test_copies_are_equal_and_independent() -> None:
    rig = make_rig()
    for twin in (copy.copy(rig), copy.deepcopy(rig), pickle.loads(pickle.dumps(rig))):
        assert twin == rig
        twin.cameras[0].T_ego_camera = np.eye(4)
        assert twin != rig and np.array_equal(rig.cameras[0].T_ego_camera, T)


def test_matrices_read_back_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="read-only"):
        make_rig().cameras[0].K[0, 0] = 3


def test_a_rig_is_read_from_a_file(tmp_path: File) -> None:
    path = tmp_path / "rig.json"
    path.write_text(make_rig().to_json())
    assert SensorRig.load(path) == SensorRig.load(str(path)) == make_rig()
    path.write_text(path.read_text().replace('"width"', '"widht"', 1))
    with pytest.raises(Error) as caught:
        SensorRig.load(path)
    assert caught.value.code == "E0212" and caught.value.where == f"{path}: cameras[0].widht"
    for nothing in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(Error) as caught:
            SensorRig.load(nothing)
        assert (caught.value.code, caught.value.where) == ("E0302", str(nothing))


def test_a_rig_file_without_end_is_refused_and_one_of_the_largest_size_is_read(tmp_path: File) -> None:
    path = tmp_path / "rig.json"
    path.write_text(make_rig().to_json().ljust(2**20))
    assert SensorRig.load(path) == make_rig()
    path.write_text(make_rig().to_json().ljust(2**20 + 1))
    for endless in (path, "/dev/zero"):
        with pytest.raises(Error, match="more than 1048576 bytes") as error:
            SensorRig.load(endless)
        assert error.value.code == "E0214"


def edited(matrix: np.ndarray, row: int, column: int, value: float) -> list[list[float]]:
    matrix = matrix.copy()
    matrix[row, column] = value
    return matrix.tolist()


C0, C1, R0, R1 = ("cameras", 0), ("cameras", 1), ("radars", 0), ("radars", 1)
MIRRORED = (np.diag([1.0, -1, 1, 1]) @ T).tolist()


def without(path: Path) -> dict[str, Any]:
    doc = document()
    del at(doc, path[:-1])[path[-1]]
    return doc


BAD = {
    "empty text": ("E0211", ""),
    "cut off": ("E0211", make_rig().to_json()[:-9]),
    "a number": ("E0211", "3"),
    "a key twice": ("E0211", '{"cameras": [], "cameras": [], "radars": []}'),
    "nan": ("E0211", make_rig().to_json().replace("510.0", "NaN")),
    "unknown key": ("E0212", document() | {"lidars": []}),
    "unknown key of a camera": ("E0212", put((*C0, "fov"), 3)),
    "unknown key of a radar": ("E0212", put((*R0, "range"), 3)),
    "no radars key": ("E0213", without(("radars",))),
    "camera without K": ("E0213", without((*C0, "K"))),
    "camera without distortion": ("E0213", without((*C0, "distortion"))),
    "radar without pose": ("E0213", without((*R1, "T_ego_radar"))),
    "width 0": ("E0214", put((*C0, "width"), 0)),
    "height negative": ("E0214", put((*C0, "height"), -5)),
    "width a fraction": ("E0214", put((*C0, "width"), 640.5)),
    "name a number": ("E0214", put((*C0, "name"), 7)),
    "name empty": ("E0214", put((*C0, "name"), "")),
    "cameras an object": ("E0214", put(("cameras",), {})),
    "K flat": ("E0214", put((*C0, "K"), K.ravel().tolist())),
    "K (2, 3)": ("E0214", put((*C0, "K"), K[:2].tolist())),
    "K with text": ("E0214", put((*C0, "K", 0, 0), "500")),
    "focal 0": ("E0214", put((*C0, "K"), edited(K, 0, 0, 0))),
    "focal negative": ("E0214", put((*C0, "K"), edited(K, 1, 1, -510))),
    "K lower entry": ("E0214", put((*C0, "K"), edited(K, 1, 0, 0.1))),
    "K last entry": ("E0214", put((*C0, "K"), edited(K, 2, 2, 2))),
    "unknown distortion": ("E0214", put((*C0, "distortion"), "rational")),
    "coefficients without distortion": ("E0214", put((*C0, "coefficients"), [0.1])),
    "4 coefficients for plumb_bob": ("E0214", put((*C1, "coefficients"), list(FISHEYE))),
    "5 coefficients for rational_polynomial": ("E0214", put((*C1, "distortion"), "rational_polynomial")),
    "5 coefficients for fisheye": ("E0214", put((*C1, "distortion"), "fisheye")),
    "pose (3, 4)": ("E0214", put((*C0, "T_ego_camera"), T[:3].tolist())),
    "pose not orthonormal": ("E0215", put((*C0, "T_ego_camera"), edited(T, 0, 0, 0.1))),
    "pose scaled": ("E0215", put((*R0, "T_ego_radar"), (np.diag([2.0, 2, 2, 1])).tolist())),
    "pose mirrored": ("E0215", put((*C0, "T_ego_camera"), MIRRORED)),
    "pose transposed": ("E0215", put((*C0, "T_ego_camera"), T.T.tolist())),
    "pose all 0": ("E0215", put((*R0, "T_ego_radar"), np.zeros((4, 4)).tolist())),
    "camera twice": ("E0216", put((*C1, "name"), "front")),
    "a camera and a radar of one name": ("E0216", put((*R0, "name"), "front")),
    "no sensors": ("E0217", {"cameras": [], "radars": []}),
    "unknown velocity": ("E0214", put((*R0, "velocity"), "doppler")),
    "aliased without period": ("E0214", put((*R1, "period"), 0)),
    "aliased with negative period": ("E0214", put((*R1, "period"), -1)),
    "period without aliasing": ("E0214", put((*R0, "period"), 10.0)),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_document_is_refused_with_its_code(case: str) -> None:
    code, doc = BAD[case]
    with pytest.raises(Error) as caught:
        SensorRig.from_json(doc if isinstance(doc, str) else json.dumps(doc))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: CameraCalibration(name="c", width=1, height=1, K=np.eye(4), T_ego_camera=T), "E0214"),
        (lambda: CameraCalibration(name="c", width=1, height=1, K=K, T_ego_camera=T, distortion="pinhole"), "E0214"),
        (lambda: CameraCalibration(name="c", width=2**31, height=1, K=K, T_ego_camera=T), "E0214"),
        (lambda: RadarCalibration(name="r", T_ego_radar=np.full((4, 4), "x")), "E0214"),
        (lambda: SensorRig(radars=[RadarCalibration(name="r", T_ego_radar=np.full((4, 4), np.nan))]), "E0214"),
        (lambda: SensorRig(radars=[RadarCalibration(name="r", T_ego_radar=np.diag([1, 1, -1, 1]))]), "E0215"),
        (lambda: SensorRig(), "E0217"),
    ],
)
def test_bad_values_given_in_python_are_refused(make: Any, code: str) -> None:
    with pytest.raises(Error) as caught:
        make()
    assert caught.value.code == code


def test_a_rig_broken_after_it_was_made_is_neither_written_nor_hashed() -> None:
    rig = make_rig()
    rig.cameras[0].width = 0
    for call in (rig.check, rig.to_json, rig.hash):
        with pytest.raises(Error) as caught:
            call()
        assert (caught.value.code, caught.value.where) == ("E0214", "cameras[0].width")


def test_poses_with_five_digits_are_good_enough() -> None:
    turn = np.eye(4)
    turn[:2, :2] = np.round([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]], 5)
    SensorRig(radars=[RadarCalibration(name="r", T_ego_radar=turn)])
