"""Every fault of every sensor on a short drive; the whole table is that of `python tests/fault_matrix.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fault_matrix import Drive, run_all
from fault_table import CAMERA, EXPECTED, KINDS
from faults import CONTENT_FAULTS, EGO, FAULTS, TIME_FAULTS, FaultDrive, Stretch, open_detector, with_time_fault

from helpers import random_spec, write_random_bundle
from imkd_edge import Bundle
from imkd_edge.sources.synth import default_rig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "faults.md"
FRAMES, BEGIN, END = 50, 8, 20  # the fault lasts longer than old sweeps serve


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    spec = random_spec(cameras=2, past=1)
    return Bundle.load(write_random_bundle(tmp_path_factory.mktemp("faults") / "small.imkd", spec))


@pytest.fixture(scope="module")
def drive(bundle: Bundle) -> FaultDrive:
    """Two cameras and two radars."""
    rig = default_rig((160, 90))
    rig.cameras, rig.radars = list(rig.cameras)[:2], list(rig.radars)[:2]
    return FaultDrive(bundle.spec, FRAMES, rig)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_fault_of_every_sensor_is_seen_as_expected(bundle: Bundle, drive: FaultDrive, device: str) -> None:
    detector = open_detector(bundle, drive.rig, device)
    if detector is None:
        pytest.skip("no cuda_on_host: the frame loop on the GPU is NOT tested (make test builds it)")
    sensors = drive.sensors() if device == "cpu" else [drive.rig.cameras[1].name, drive.rig.radars[0].name]
    with detector:
        cells = run_all(Drive.make(drive, detector, BEGIN, END), sensors)
    assert len(cells) == len(sensors) * len(FAULTS)
    wrong = {(cell.sensor, cell.fault): cell.problems for cell in cells if cell.problems}
    assert not wrong, wrong


def test_the_harness_sees_a_frame_that_the_fault_changes(bundle: Bundle, drive: FaultDrive) -> None:
    """Shows that a cell can fail: where an absent radar was expected to be late."""
    detector = open_detector(bundle, drive.rig, "cpu")
    assert detector is not None
    with detector, pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPECTED["radar"], "absent", EXPECTED["radar"]["late"])
        cell = Drive.make(drive, detector, BEGIN, END).run("absent", drive.rig.radars[0].name)
    assert any("missing, partial" in problem for problem in cell.problems)


@pytest.mark.parametrize("fault", TIME_FAULTS)
def test_a_fault_of_time_changes_the_items_of_its_sensor_and_stretch_only(drive: FaultDrive, fault: str) -> None:
    sensor, times = drive.rig.radars[0].name, sorted({frame.timestamp_ns for frame in drive.frames})
    stretch = Stretch(sensor, times[BEGIN], times[END])
    faulty = with_time_fault(drive.items, fault, stretch)
    before, after = (sorted(map(id, items)) for items in (drive.items, faulty))
    kept = [item for item in drive.items if item.sensor != sensor or not stretch.has(item.time)]
    assert set(map(id, kept)) <= set(after) and before != after


def test_the_expectation_names_every_fault_of_every_kind() -> None:
    for kind in KINDS:
        assert tuple(EXPECTED[kind]) == FAULTS
        assert set(CONTENT_FAULTS[kind]) | set(TIME_FAULTS) == set(FAULTS)


def rows_of_the_page() -> dict[tuple[str, str], list[str]]:
    """(title of the kind, fault) -> the cells of its row."""
    rows, title = {}, ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            title = line[3:].lower()
        elif re.match(r"\| (?!fault|-)", line):
            fault, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows[title, fault] = cells
    return rows


def test_the_page_says_what_is_expected() -> None:
    rows = rows_of_the_page()
    for kind, title in KINDS.items():
        for fault, expected in EXPECTED[kind].items():
            if kind == "reference" and expected == CAMERA[fault]:
                assert (title, fault) not in rows
                continue
            through, state, mode, says, seen, recovered, settled, note = rows.pop((title, fault))
            assert (through == "synchronizer") == (fault in TIME_FAULTS)
            assert (state, mode, note) == (expected.state, expected.mode, expected.note)
            assert re.findall(r"[EW]\d{4}", says) == [*([expected.error] if expected.error else []), *expected.warnings]
            assert int(seen) <= expected.within and int(recovered) <= 2 and int(settled) < 80, (kind, fault)
    assert not rows


def test_ego_motion_is_a_sensor_too(drive: FaultDrive) -> None:
    assert drive.sensors() == ["CAM_FRONT", "CAM_FRONT_RIGHT", "RADAR_FRONT", "RADAR_FRONT_RIGHT", EGO]
