"""quantize on a Source object and on a drive folder: the bytes of the same frames given by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from imkd_edge.bundle import Bundle
from imkd_edge.options import QuantizeOptions
from imkd_edge.quantization.quantize import quantize
from imkd_edge.sources import Sample, Source, open_source
from imkd_edge.sources.convert import convert

SYNTH = {"scenes": 2, "frames_per_scene": 9}
OPTIONS = QuantizeOptions(frames=16, no_correct=True, split="all", evaluate="val")


class Own(Source):
    """A user's source, where traffic keeps to the left."""

    kind, traffic = "own", "left"

    def __init__(self) -> None:
        self.source = open_source("synth", **SYNTH)
        self.names = self.source.names
        self.splits = {"train": self.names[:16], "val": self.names[16:]}

    def __getitem__(self, name: str) -> Sample:
        return self.source[name]


def test_a_source_and_a_folder_of_it_calibrate_as_its_name(random_bundle: Path, tmp_path: Path) -> None:
    own = quantize(random_bundle, Own(), tmp_path / "own.int8.imkd", OPTIONS, threads=1)
    assert own["frames"] == 16 and {"float", "int8"} == set(own["metrics"])
    convert(Own(), tmp_path / "drive")
    options = QuantizeOptions(frames=16, no_correct=True, split="all")
    by_folder = quantize(random_bundle, str(tmp_path / "drive"), tmp_path / "folder.int8.imkd", options, threads=1)
    by_name = quantize(random_bundle, "synth", tmp_path / "name.int8.imkd", options, source_options=SYNTH, threads=1)
    assert own["frames_sha256"] == by_folder["frames_sha256"] == by_name["frames_sha256"]
    for part in ("camera.onnx", "bev.onnx"):
        files = [(tmp_path / f"{name}.int8.imkd" / part).read_bytes() for name in ("own", "folder", "name")]
        assert files[0] == files[1] == files[2]


def test_calibration_by_the_train_split_of_a_source(random_bundle: Path, tmp_path: Path) -> None:
    own = Own()
    quantize(random_bundle, own, tmp_path / "own.int8.imkd", QuantizeOptions(frames=16, no_correct=True), threads=1)
    frames = Bundle.load(tmp_path / "own.int8.imkd").manifest["provenance"]["quantization"]["frames"]
    assert len(frames) > 10 and set(frames) <= set(own.splits["train"])


def test_traffic_on_the_other_side_than_in_training_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tiny was trained where traffic keeps to the right."""

    class Stop(Exception): ...

    def stop(*_: object) -> None:
        raise Stop

    monkeypatch.setattr("imkd_edge.quantization.calibrate.choose_frames", stop)
    with pytest.warns(UserWarning, match="W0141 the drive's vehicles keep to the left"), pytest.raises(Stop):
        quantize("tiny", Own(), tmp_path / "m.int8.imkd", OPTIONS, threads=1)
    assert not list(tmp_path.glob("*.imkd"))
