"""The long drive that measurements begin with: its rates, and every frame of it complete in the live path."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from recording import drive, speed

from helpers import random_spec
from imkd_edge.run.replay import Replay
from imkd_edge.sources import open_source

pytestmark = pytest.mark.filterwarnings("ignore:.*no topic map.*")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drive.write(tmp_path_factory.mktemp("drive") / "drive.mcap", 1.0)


def test_the_rates_are_those_of_a_vehicle(path: Path) -> None:
    from mcap.reader import make_reader

    with open(path, "rb") as file:
        counts = Counter(channel.topic for _, channel, _ in make_reader(file).iter_messages())
    cameras = [count for topic, count in counts.items() if topic.endswith("image_raw/compressed")]
    radars = [count for topic, count in counts.items() if topic.startswith("/radar")]
    assert cameras == [11] * 6 and len(radars) == 5 and all(14 <= count <= 17 for count in radars)  # 0.2 s before it
    assert counts["/odometry"] == 51


def test_every_frame_is_complete_in_the_live_path(path: Path) -> None:
    """But the last one: the drive ends before its radars measure again."""
    source = open_source(path)
    replay = Replay(source, random_spec(cameras=6), real_time=False)
    assert [sample.name for sample in replay] == source.names
    counts = replay.counts.items
    assert (counts["complete"], counts["incomplete"]) == (10, 1) and counts["restarts"] == counts["late"] == 0


def test_the_measurement_runs_and_reading_is_no_slower_than_a_few_times_the_library(path: Path) -> None:
    result = speed.measure(path, frames=3)
    assert 0 < result["scan_s"] < 5 * result["library_file_order_s"]
