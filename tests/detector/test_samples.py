"""prepare sets the rig and discards the past where samples differ; `select` refuses wrong frames and options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sources.nuscenes_folder import write_nuscenes

from helpers import without_package
from imkd_edge.detector import Detector
from imkd_edge.errors import Error
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample
from imkd_edge.sources.select import open_with, resolve_name, select
from imkd_edge.sources.synth import SynthSource


class Recorder(Detector):
    """A detector without networks, which records its calls."""

    def __init__(self, rig: SensorRig) -> None:
        self._rig = SensorRig.from_json(rig.to_json())
        self.called: list[str] = []

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
    detector = Recorder(sample.rig)

    def called(sample: Sample) -> list[str]:
        detector.called.clear()
        detector.prepare(sample)
        return detector.called.copy()

    assert called(sample) == called(replace(sample, rig=SensorRig.from_json(sample.rig.to_json()))) == []
    shift = np.zeros((4, 4))
    shift[0, 3] = 1e-9
    sample.rig.radars[0].T_ego_radar = sample.rig.radars[0].T_ego_radar + shift  # in the sample itself
    assert called(sample) == ["set_rig"] and called(sample) == []
    assert called(replace(sample, scene="another")) == ["reset"] and called(sample) == ["reset"]


def test_a_selection_without_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.txt").write_text("\n \n")
    monkeypatch.setattr(SynthSource, "splits", {"test": []})
    for selection, fix in (
        ({"span": str(tmp_path / "list.txt")}, "one name per line"),
        ({"split": "test"}, "another split"),
    ):
        with pytest.raises(Error, match="E0307") as raised:
            select("synth", **selection)
        assert fix in raised.value.fix


def test_a_missing_split_says_which_there_are_or_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fix(source: Path | str, split: str = "dev") -> str:
        with pytest.raises(Error, match=rf"E0307.*there is no split '{split}'") as raised:
            select(str(source), split=split)
        return raised.value.fix

    folder = write_nuscenes(tmp_path)
    assert fix("synth") == "choose one of: train, val"
    without_package(monkeypatch, "nuscenes")
    assert "pip install" in fix(folder, "val") and "--no-deps nuscenes-devkit==" in fix(folder, "val")
    assert "devkit" not in fix(folder) and "--split all" in fix(folder)  # its own split, which no package brings
    monkeypatch.setattr(SynthSource, "splits", {})
    assert "--split all" in fix("synth") and "devkit" not in fix("synth")


def test_a_number_is_one_of_decimal_digits() -> None:
    assert resolve_name(["000007", "000012"], "12", "") == "000012" and resolve_name(["a", "b"], "1", "") == "b"
    for names, text in ((["000002", "000007"], "²"), (["a", "b", "c"], "²"), (["²"], "2")):
        with pytest.raises(Error, match="E0307"):
            resolve_name(names, text, "")


def test_an_unknown_option_and_a_wrong_value_have_different_codes() -> None:
    with pytest.raises(Error, match=r"E0102.*takes no option 'nosuch'") as raised:
        open_with("synth", {"nosuch": 1})
    for options in ({"scenes": "abc"}, {"image": 5}, {"frames_per_scene": 1.5}, {"seed": 1.5}, {"sweeps": 0.5}):
        with pytest.raises(Error, match=r"E0104.*no such value") as raised:
            open_with("synth", options)
        assert f"--option {next(iter(options))}" in raised.value.fix
