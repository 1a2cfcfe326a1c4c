"""prepare: a detector gets another rig and forgets the past exactly where the recording asks for it."""

from __future__ import annotations

from dataclasses import replace

from imkd_edge.rig import SensorRig
from imkd_edge.samples import prepare
from imkd_edge.sources.sample import Sample
from imkd_edge.sources.synth import SynthSource


class Noting:
    """A detector's part in it."""

    def __init__(self, rig: SensorRig) -> None:
        self._rig, self.called = SensorRig.from_json(rig.to_json()), []

    @property
    def rig(self) -> SensorRig:
        return SensorRig.from_json(self._rig.to_json())  # a copy, as a Detector gives it

    def set_rig(self, rig: SensorRig) -> None:
        self._rig = SensorRig.from_json(rig.to_json())
        self.called.append("set_rig")

    def reset(self) -> None:
        self.called.append("reset")


def test_the_rig_is_set_where_one_number_of_it_differs() -> None:
    source = SynthSource()
    sample: Sample = source[source.names[0]]
    detector = Noting(sample.rig)

    def called(sample: Sample) -> list[str]:
        detector.called.clear()
        prepare(detector, sample)  # type: ignore[arg-type]
        return detector.called.copy()

    assert called(sample) == called(replace(sample, rig=SensorRig.from_json(sample.rig.to_json()))) == []
    sample.rig.radars[0].T_ego_radar = sample.rig.radars[0].T_ego_radar + [[0, 0, 0, 1e-9], [0] * 4, [0] * 4, [0] * 4]  # in place
    assert called(sample) == ["set_rig"] and called(sample) == []
    assert called(replace(sample, scene="another")) == ["reset"] and called(sample) == ["reset"]
