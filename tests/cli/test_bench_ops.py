"""bench --ops: equal outputs of both sides, alternation, counts of bytes, and the load of other processes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from imkd_edge.bench import bench_ops, race
from imkd_edge.bench import ops as races_of
from imkd_edge.cli import report
from imkd_edge.spec import ImageSpec


def test_both_sides_of_a_race_compute_the_same(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The ratio of two times is meaningful only where both outputs agree."""
    monkeypatch.setattr(race, "COPY_BYTES", 1 << 20)
    result = bench_ops(str(random_bundle), repeats=3)
    report.show_ops(result)
    assert "preprocess_images: " in capsys.readouterr().out
    rows = {(row["op"], row["reference"].split()[0].rstrip(",")): row for row in result["ops"]}
    assert {op for op, _ in rows} == {"preprocess_images", "voxelize_radar", "lift", "warp_bev", "decode"}
    assert {("lift", "NumPy"), ("lift", "torch"), ("decode", "torch"), ("preprocess_images", "torchvision")} <= set(
        rows
    )
    assert {row["threads"] for row in result["ops"]} == set(result["copy_gb_per_s"])
    limits = {  # grey levels, then the output's unit
        "preprocess_images": 1.01,  # the references round twice to whole levels
        "voxelize_radar": 2e-4,
        "lift": 1e-4,
        "warp_bev": 1e-2,
        "decode": 1e-3,
    }
    for (op, reference), row in rows.items():
        if (op, reference) != ("decode", "torch"):  # another NMS retains other boxes
            assert row["difference"] is not None and row["difference"] <= limits[op], row
        assert row["ratio"] == pytest.approx(row["reference_ms"]["p50"] / row["ours_ms"]["p50"])


def test_floor_counts_each_byte_once() -> None:
    """By hand: two images of 480 x 270, scaled by 0.5 to 240 x 128, which reads 480 x 256 pixels of each."""
    spec = SimpleNamespace(image=ImageSpec(width=240, height=128, stride=16, anchor=0.5))
    pixels = np.zeros((270, 480, 3), np.uint8)
    cameras = [SimpleNamespace(name=name) for name in "ab"]
    sample = SimpleNamespace(rig=SimpleNamespace(cameras=cameras), frames={"a": pixels, "b": pixels})
    for pair in races_of._images(spec, sample):
        assert pair.traffic == {"pixels read": 2 * 3 * 480 * 256, "tensor written": 2 * 4 * 3 * 240 * 128}


def test_calls_of_a_race_alternate_and_the_copy_sets_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by hand: the fastest copy moves 2 MB in 2 ms, so the floor is 1 GB/s."""
    now, order = [0], []

    def call(name: str, ms: float, value: float):
        def run() -> np.ndarray:
            order.append(name)
            now[0] += int(ms * 1e6)
            return np.array([value])

        return run

    copy_ms = iter([9, 9, 2, 9, 5])  # the first is the warm-up; then every second one is timed

    def copy() -> None:
        order.append("copy")
        now[0] += int(next(copy_ms) * 1e6)

    copy.traffic = 2_000_000
    monkeypatch.setattr(race, "Copy", lambda threads: copy)
    monkeypatch.setattr(
        race, "time", SimpleNamespace(sleep=lambda s: order.append("pause"), perf_counter_ns=lambda: now[0])
    )
    traffic = {"in": 600_000, "out": 400_000}
    pair = race.Race("op", "usual", call("ours", 3, 1), call("theirs", 12, 1.5), traffic, unit=10)
    [row], bandwidth = race.run([pair], 1, range(2))
    turn = [event for name in ("copy", "ours", "theirs") for event in ("pause", name, name)]
    assert order == ["copy", "ours", "theirs", *turn, *turn]
    assert bandwidth == 1.0 and (row["ratio"], row["difference"]) == (4, 5)
    assert (row["floor_ms"], row["times_floor"]) == (1, 3)


def test_load_of_other_processes_excludes_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(race, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    # this process is busy half of the time
    monkeypatch.setattr(race.os, "times", lambda: (now[0] / 2, 0, 0, 0, now[0]))
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 4000 5\n")
    others = race.BackgroundLoad(stat)
    now[0] = 0.2
    stat.write_text("cpu  130 20 30 4000 5\n")  # 30 ticks of 10 ms: 0.3 s, 0.1 s of them by this process
    assert others.cores() == pytest.approx(1)
    assert race.BackgroundLoad(tmp_path / "none").cores() is None
