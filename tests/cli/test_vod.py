"""infer and eval on a View-of-Delft folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from sources.vod_folder import SPLITS, write_vod

from helpers import random_spec, without_package, write_random_bundle
from imkd_edge import Detector


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vod(tmp_path_factory.mktemp("vod"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("bundle") / "one.imkd", random_spec(1))


def test_infer_reads_a_split(run, folder: Path, bundle: Path, tmp_path: Path) -> None:
    outcome = run("infer", folder, "--bundle", bundle, "--split", "val", "--json", "--save", "--out", tmp_path)
    assert outcome.code == 0 and [line["frame"] for line in outcome.lines] == SPLITS["val"]
    for line in outcome.lines:
        assert line["health"]["sensors"] == {"camera_front": "ok", "radar_front": "ok"}
        # The accumulated scans lie where the vehicle is now, so that an unknown motion takes nothing away.
        assert (line["health"]["mode"], line["health"]["ego_motion"]) == ("full", "none")
        assert line["health"]["warnings"] == []
        assert (tmp_path / line["frame"] / "overview.png").stat().st_size > 10_000


def test_eval_has_the_metrics_of_view_of_delft(run, folder: Path, bundle: Path) -> None:
    outcome = run("eval", bundle, "--data", folder, "--split", "val", "--option", "scans=1", "--json")
    result = outcome.json
    assert outcome.code == 0 and (result["dataset"], result["split"], result["frames"]) == ("vod", "val", 2)
    names = {"mAP_entire_area", "mAP_driving_corridor", "car_ap_entire_area", "cyclist_ap_driving_corridor"}
    assert names <= set(result["metrics"])
    assert all(0 <= value <= 100 for value in result["metrics"].values())


def test_eval_without_the_devkit_names_its_package(
    run, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_package(monkeypatch, "vod")
    monkeypatch.setattr(Detector, "infer", lambda *arguments: pytest.fail("a frame ran before the check"))
    outcome = run("eval", bundle, "--data", folder, "--json")
    assert outcome.code == 3 and outcome.stdout == ""
    assert outcome.stderr.startswith("error[E0701]") and "vod-tudelft" in outcome.stderr
