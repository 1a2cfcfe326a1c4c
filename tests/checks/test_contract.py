"""A contract is measured on a drive: each number against the drive that a test makes; and what follows from it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rigs import camera, mounted, three_camera_rig

from helpers import random_spec
from imkd_edge.bundle import Bundle
from imkd_edge.bundle.contract import Contract
from imkd_edge.checks.contract import WarningLog, compare_rig, compare_source, measure, spaced, with_warnings
from imkd_edge.errors import Error
from imkd_edge.frames import RadarSweep
from imkd_edge.result import Health, Result, Warning
from imkd_edge.rig import RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.synth import default_rig

MS = 1_000_000  # ns
SPEC = random_spec()  # car, pedestrian
CLASSES = {"Car": "car", "Van": "car", "Person": "pedestrian"}
SOURCE = SimpleNamespace(kind="test", intensity="snr_db", traffic="left")


def rig() -> SensorRig:
    """Cameras of 90 and 60 degrees, 1.5 and 2.5 m high; radars 0.5 and 0.8 m high."""
    cameras = [
        camera("front", mounted(1, 0, 1.5, 0), (640, 360), 320),
        camera("left", mounted(0, 1, 2.5, 90), (300, 200), 150 * np.sqrt(3), "plumb_bob", (0, 0, 0, 0, 0)),
    ]
    radars = [
        RadarCalibration(name="near", T_ego_radar=mounted(3, 0, 0.5, 0)),
        RadarCalibration(name="far", T_ego_radar=mounted(3, 1, 0.8, 20), velocity="raw"),
    ]
    return SensorRig(cameras=cameras, radars=radars)


def cloud() -> np.ndarray:
    """100 valid points of 1 to 100 dB, and three invalid ones: not a number, of zeros, too fast."""
    points = np.column_stack([np.full((100, 3), 10.0), np.arange(1, 101), np.zeros(100)])
    invalid = [[np.nan, 1, 1, 0, 0], [0, 0, 0, -50, 0], [10, 0, 0, -50, 301]]
    return np.concatenate([points, invalid]).astype(np.float32)


def truth(labels: list[str], lengths: list[float], velocity: float = np.nan) -> Truth:
    boxes = np.array([[10, 0, 1, length, 2, 1.5, 0, velocity, velocity] for length in lengths]).reshape(-1, 9)
    counts = np.zeros(len(labels), np.int32)
    return Truth(boxes, labels, np.zeros(len(labels), np.int8), counts, counts)


def sample(index: int, sensors: SensorRig | None = None, labels: Truth | None = None, scene: str = "a") -> Sample:
    """Every 0.1 s; each radar has measured 50 ms ago and just now."""
    sensors, now = sensors or rig(), 10**9 + index * 100 * MS
    radar = [RadarSweep(r.name, cloud(), now - age * MS) for r in sensors.radars for age in (50, 0)]
    return Sample(str(index), now, sensors, {}, radar, truth=labels, scene=scene)


def contract_of(*samples: Sample, source: SimpleNamespace = SOURCE) -> Contract:
    return measure(samples, SPEC, CLASSES, source, "train")


@pytest.fixture(scope="module")
def contract() -> Contract:
    labels = [
        truth(["Car", "Van", "Tree"], [4.0, 4.5, 9.0]),
        None,
        truth(["Car"], [5.0]),
        truth([], []),
    ]
    return contract_of(*(sample(i, labels=labels[i]) for i in range(4)))


# ---- measuring ----
def test_the_contract_says_what_was_measured(contract: Contract) -> None:
    assert (contract.data, contract.frames, contract.traffic) == ("test, split train", 4, "left")


def test_cameras_are_measured(contract: Contract) -> None:
    cameras = contract.cameras
    assert cameras.number == (2, 2) and cameras.field_of_view == pytest.approx((60, 90), abs=0.05)
    assert (cameras.width, cameras.height) == ((300, 640), (200, 360))
    assert cameras.lenses == ("none", "plumb_bob") and cameras.mounting == (1.5, 2.5)


def test_radars_are_measured_on_their_valid_points(contract: Contract) -> None:
    radars = contract.radars
    assert radars.number == (2, 2) and radars.velocity == ("compensated", "raw") and radars.unit == "snr_db"
    assert radars.intensity == (1.0, 99.0)  # the 1st and the 99th of 100
    assert radars.points == (100, 100) and radars.rate == 20.0 and radars.mounting == (0.5, 0.8)


def test_classes_are_those_of_the_spec_with_the_median_of_their_labels(contract: Contract) -> None:
    car, person = contract.classes
    assert (car.name, car.objects, car.size) == ("car", 3, (4.5, 2.0, 1.5))
    assert (person.name, person.objects, person.size) == ("pedestrian", 0, (0, 0, 0))


@pytest.mark.parametrize(("velocity", "trained"), [(np.nan, False), (3.0, True), (0.0, True)])
def test_velocity_is_trained_where_one_label_has_it(velocity: float, trained: bool) -> None:
    labels = truth(["Car", "Car"], [4, 5])
    labels.boxes[1, 7:9] = velocity
    assert contract_of(sample(0, labels=labels)).trained.velocity == trained
    other = truth(["Tree"], [4], 3.0)  # of no class
    assert not contract_of(sample(0, labels=other)).trained.velocity


@pytest.mark.parametrize("plane", [None, (0, 0, 0), (0, 0, -0.5), (0.1, 0, -0.5)])
def test_heights_are_above_the_ground_plane(plane) -> None:
    sensors = rig()
    sensors.ground_plane = plane
    contract = contract_of(sample(0, sensors))
    assert contract.ground_plane == (plane not in (None, (0, 0, 0)))
    a, _, c = plane or (0, 0, 0)
    heights = [(z - a * x - c) / np.hypot(1, a) for x, z in ((1, 1.5), (0, 2.5))]  # distance from a plane
    assert contract.cameras.mounting == pytest.approx(heights, abs=1e-3)


def test_a_drive_whose_rig_changes_has_a_range() -> None:
    fewer = rig()
    fewer.cameras, fewer.radars = list(fewer.cameras)[:1], list(fewer.radars)[:1]
    contract = contract_of(sample(0), sample(1, fewer))
    assert contract.cameras.number == (1, 2) and contract.radars.number == (1, 2)


def test_a_rate_needs_two_sweeps_of_one_scene() -> None:
    """The time between two recordings is no period."""

    def one_sweep(index: int, scene: str) -> Sample:
        whole = sample(index, scene=scene)
        return replace(whole, radar=whole.radar[1:2])

    assert contract_of(one_sweep(0, "a"), one_sweep(1, "b"), one_sweep(2, "c")).radars.rate == 0
    assert contract_of(one_sweep(0, "a"), one_sweep(1, "a")).radars.rate == 10.0


def test_a_drive_without_radars_has_empty_ranges() -> None:
    sensors = rig()
    sensors.radars = []
    radars = contract_of(sample(0, sensors)).radars
    assert radars.number == (0, 0) and radars.velocity == () and radars.intensity == radars.points == (0, 0)


def test_a_source_that_says_neither_unit_nor_side_leaves_them_unknown() -> None:
    contract = contract_of(sample(0), source=SimpleNamespace(kind="bare"))
    assert (contract.radars.unit, contract.traffic) == ("unknown", "unknown")


def test_no_frame_is_no_contract() -> None:
    with pytest.raises(Error) as error:
        contract_of()
    assert error.value.code == "E0604"


def test_frames_are_evenly_spaced_and_no_more_than_the_limit() -> None:
    assert spaced(range(10), 4) == [0, 2, 5, 7] and spaced(range(3), 10) == [0, 1, 2] and spaced([], 5) == []
    assert len(spaced(range(5000))) == 500


# ---- its form ----
def test_a_contract_reads_back(contract: Contract) -> None:
    assert Contract.from_json(contract.to_json()) == contract


def drop(key: str):
    return lambda tree: tree.pop(key)


def put(path: str, value):
    def change(tree: dict) -> None:
        *keys, last = path.split(".")
        for key in keys:
            tree = tree[int(key) if isinstance(tree, list) else key]
        tree[int(last) if isinstance(tree, list) else last] = value

    return change


MALFORMED = {  # change -> code
    "a key too many": (put("colour", "red"), "E0403"),
    "a key too many within": (put("cameras.colour", "red"), "E0403"),
    "a key is lacking": (drop("traffic"), "E0404"),
    "a key is lacking within": (lambda tree: tree["radars"].pop("rate"), "E0404"),
    "text for a number": (put("frames", "four"), "E0410"),
    "no frame": (put("frames", 0), "E0410"),
    "a fraction of a frame": (put("frames", 1.5), "E0410"),
    "another side": (put("traffic", "middle"), "E0410"),
    "another unit": (put("radars.unit", "percent"), "E0410"),
    "another lens": (put("cameras.lenses", ["pinhole"]), "E0410"),
    "a lens twice": (put("cameras.lenses", ["none", "none"]), "E0410"),
    "cameras without a lens": (put("cameras.lenses", []), "E0410"),
    "another kind of velocity": (put("radars.velocity", ["doppler"]), "E0410"),
    "a range of one number": (put("cameras.number", [2]), "E0410"),
    "a range upside down": (put("radars.intensity", [99, 1]), "E0410"),
    "an intensity that no radar has": (put("radars.intensity", [-400, 1]), "E0410"),
    "a negative rate": (put("radars.rate", -1), "E0410"),
    "more than a full circle": (put("cameras.field_of_view", [60, 361]), "E0410"),
    "a sensor in the sky": (put("radars.mounting", [0.5, 500]), "E0410"),
    "no class": (put("classes", []), "E0410"),
    "a class without a name": (put("classes.0.name", ""), "E0410"),
    "objects without a size": (put("classes.0.size", [0, 0, 0]), "E0410"),
    "a size of two numbers": (put("classes.0.size", [4, 2]), "E0410"),
    "a number for yes or no": (put("trained.velocity", 1), "E0410"),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_contract_is_refused_with_its_code(contract: Contract, fault: str) -> None:
    change, code = MALFORMED[fault]
    tree = json.loads(contract.to_json())
    change(tree)
    with pytest.raises(Error) as error:
        Contract.from_json(json.dumps(tree))
    assert error.value.code == code and error.value.where


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"frames": 1, "frames": 2}', "null"], ids=["empty", "list", "open", "key twice", "null"]
)
def test_what_is_no_object_of_json_is_refused(text: str) -> None:
    with pytest.raises(Error) as error:
        Contract.from_json(text)
    assert error.value.code == "E0402"


def test_a_contract_of_other_classes_is_not_that_of_the_spec(contract: Contract) -> None:
    with pytest.raises(Error) as error:
        replace(contract, classes=contract.classes[:1]).core().check(SPEC)
    assert error.value.code == "E0410"


# ---- what follows from it ----
def codes(warnings) -> list[str]:
    return [warning.code for warning in warnings]


def test_a_rig_is_held_against_the_contract() -> None:
    tiny = Bundle.load("tiny")
    assert codes(compare_rig(tiny, default_rig())) == []
    warnings = compare_rig(tiny, three_camera_rig())
    assert codes(warnings) == ["W0101", "W0104", "W0111", "W0113", "W0115", "W0116"]
    assert "radar_front" in warnings[0].text and "trained with 5" in warnings[1].text
    bare = replace(tiny, contract=None)
    assert codes(compare_rig(bare, three_camera_rig())) == ["W0101"]  # its spec alone tells that


@pytest.mark.parametrize(("trained", "side", "expected"), [
    ("right", "left", ["W0141"]),
    ("left", "right", ["W0141"]),
    ("right", "right", []),
    ("right", "unknown", []),
    ("unknown", "left", []),
])  # fmt: skip
def test_the_side_of_the_road_is_compared_where_both_are_known(trained: str, side: str, expected: list[str]) -> None:
    tiny = Bundle.load("tiny")
    bundle = replace(tiny, contract=replace(tiny.contract, traffic=trained))
    assert codes(compare_source(bundle, SimpleNamespace(kind="test", traffic=side))) == expected
    assert codes(compare_source(replace(tiny, contract=None), SimpleNamespace(kind="test", traffic=side))) == []


def test_warnings_of_the_drive_join_those_of_the_frame() -> None:
    warnings = Warning("W0131", "unknown"), Warning("W0141", "left")
    health = Health("full", {}, 0, 0, 0, 0, 0, "none", False, 0.0, 0.0, 0, warnings=warnings[:1])
    none = np.zeros(0, np.float32)
    result = Result(0, none.reshape(0, 9), none, none, (), health, {}, 0.0)
    assert with_warnings(result, ()) is result
    assert with_warnings(result, warnings[1:]) == replace(result, health=replace(health, warnings=warnings))


def test_a_warning_is_written_where_it_begins_and_where_it_ends() -> None:
    lines: list[str] = []
    log = WarningLog(lines.append)
    intensity, motion = Warning("W0102", "low"), Warning("W0131", "unknown")
    both = [intensity, motion]
    for frame, warnings in enumerate([[], [motion], both, both, [intensity], [], [], [motion]]):
        log.write(str(frame), warnings)
    assert lines == [
        "1: W0131 unknown",
        "2: W0102 low",
        "4: W0131 ended",
        "5: W0102 ended",
        "7: W0131 unknown",
    ]


def test_another_text_of_the_same_warning_is_no_new_state() -> None:
    lines: list[str] = []
    log = WarningLog(lines.append)
    for text in ("-50 dB", "-51 dB"):
        log.write("0", [Warning("W0102", text)])
    assert lines == ["0: W0102 -50 dB"]
