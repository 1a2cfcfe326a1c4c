"""bench --ops: that it compares like with like, in turns, and counts bytes as it says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from imkd_edge.bench import bench_ops, race
from imkd_edge.bench import ops as races_of
from imkd_edge.cli import report
from imkd_edge.spec import ImageSpec


def test_the_two_sides_compute_the_same(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The two sides of each race compute the same thing, so their ratio means something."""
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
    limits = {
        "preprocess_images": 1.01,  # two roundings to whole levels in the chains
        "voxelize_radar": 2e-4,
        "lift": 1e-4,
        "warp_bev": 1e-2,
        "decode": 1e-3,
    }  # grey levels, then the output's unit
    for (op, reference), row in rows.items():
        if (op, reference) != ("decode", "torch"):  # its NMS is another one, so are the boxes kept
            assert row["difference"] is not None and row["difference"] <= limits[op], row
        assert row["ratio"] == pytest.approx(row["reference_ms"]["p50"] / row["ours_ms"]["p50"])


def test_the_floor_counts_each_byte_once() -> None:
    """By hand: two images of 480 x 270 at 0.5 to 240 x 128, so 480 x 256 pixels of each are seen."""
    spec = SimpleNamespace(image=ImageSpec(width=240, height=128, stride=16, anchor=0.5))
    pixels = np.zeros((270, 480, 3), np.uint8)
    cameras = [SimpleNamespace(name=name) for name in "ab"]
    sample = SimpleNamespace(rig=SimpleNamespace(cameras=cameras), frames={"a": pixels, "b": pixels})
    for pair in races_of._images(spec, sample):
        assert pair.traffic == {"pixels read": 2 * 3 * 480 * 256, "tensor written": 2 * 4 * 3 * 240 * 128}


def test_a_race_is_timed_in_turns_and_held_against_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks by hand: each call takes as long as it says, the copy's fastest 2 ms for 2 MB, so the floor is 1 GB/s."""
    now, order = [0], []

    def call(name: str, ms: float, value: float):
        def run() -> np.ndarray:
            order.append(name)
            now[0] += int(ms * 1e6)
            return np.array([value])

        return run

    lasts = iter([9, 9, 2, 9, 5])  # the first is the warm-up, and every second one is not timed

    def copy() -> None:
        order.append("copy")
        now[0] += int(next(lasts) * 1e6)

    copy.traffic = 2_000_000
    monkeypatch.setattr(race, "Copy", lambda threads: copy)
    monkeypatch.setattr(
        race, "time", SimpleNamespace(sleep=lambda s: order.append("pause"), perf_counter_ns=lambda: now[0])
    )
    [row], bandwidth = race.run(
        [race.Race("op", "usual", call("ours", 3, 1), call("theirs", 12, 1.5), {"in": 600_000, "out": 400_000}, 10)],
        1,
        range(2),
    )
    assert order == [
        "copy",
        "ours",
        "theirs",
        *["pause", "copy", "copy", "pause", "ours", "ours", "pause", "theirs", "theirs"] * 2,
    ]
    assert (
        bandwidth == 1.0
        and row["ratio"] == 4
        and row["difference"] == 5
        and row["floor_ms"] == 1
        and row["times_floor"] == 3
    )


def test_what_others_use_of_the_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(race, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    # This process is busy half of the time.
    monkeypatch.setattr(race.os, "times", lambda: (now[0] / 2, 0, 0, 0, now[0]))
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 4000 5\n")
    others = race.BackgroundLoad(stat)
    now[0] = 0.2
    stat.write_text("cpu  130 20 30 4000 5\n")  # 30 ticks of 10 ms: 0.3 s, of which 0.1 s are this process's
    assert others.cores() == pytest.approx(1)
    assert race.BackgroundLoad(tmp_path / "none").cores() is None
