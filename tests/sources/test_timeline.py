"""Walking to a sample through its past: by time, within its scene, the oldest first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from imkd_edge import Error
from imkd_edge.errors import Code
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import default_rig
from imkd_edge.sources.timeline import Timeline, infer_with_past
from imkd_edge.spec import HistorySpec

MS = 1_000_000  # ns
RIG = default_rig((64, 48))


class Recording:
    """A scene of 40 samples at 20 Hz after another one; samples can be broken. It counts what is read."""

    kind = "recording"

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.names = [f"{scene}{k:02}" for scene in "ab" for k in range(40)]
        self.broken, self.reads = broken, []

    def moment(self, name: str) -> tuple[str, int]:
        return name[0], int(name[1:]) * 50 * MS

    def __getitem__(self, name: str) -> Sample:
        if name in self.broken:
            raise Error(Code.source_bad_image, "truncated", name)
        self.reads.append(name)
        scene, time = self.moment(name)
        return Sample(name, time, RIG, {}, [], scene=scene)


def history(frames: int, interval: float = 0.5) -> HistorySpec:
    return HistorySpec(frames=frames, interval=interval, channels=4)


@pytest.mark.parametrize(
    ("frames", "interval", "name", "expected"),
    [
        (3, 0.5, "b35", ["b05", "b15", "b25", "b35"]),  # 1.5 s at 20 Hz: 30 samples
        (2, 0.25, "b35", ["b25", "b30", "b35"]),
        (3, 0.5, "b12", ["b02", "b12"]),
        (3, 0.5, "b00", ["b00"]),
        (0, 0.5, "b35", ["b35"]),
    ],
)
def test_the_walk_goes_back_by_time(frames: int, interval: float, name: str, expected: list[str]) -> None:
    source = Recording()
    assert [sample.name for sample in Timeline(source, history(frames, interval)).walk(name)] == expected
    assert source.reads == expected  # nothing else is decoded


def test_the_neighbour_of_a_broken_sample_takes_its_slot() -> None:
    source = Recording(broken=("b25",))
    with pytest.raises(Error):
        list(Timeline(source, history(2)).walk("b35"))
    walk = Timeline(source, history(2), without=source.broken).walk("b35")
    assert [sample.name for sample in walk] == ["b15", "b26", "b35"]


def test_a_detector_forgets_what_it_ran_before() -> None:
    calls: list[str] = []

    def infer(sample: Sample) -> str:
        calls.append(sample.name)
        return f"result of {sample.name}"

    detector = SimpleNamespace(reset=lambda: calls.append("reset"), infer_sample=infer)
    result = infer_with_past(detector, Timeline(Recording(), history(2)).walk("a30"))  # type: ignore[arg-type]
    assert calls == ["reset", "a10", "a20", "a30"] and result == "result of a30"
