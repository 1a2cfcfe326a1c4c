"""imkd-edge contract writes into a bundle what it was trained on; inspect prints it; doctor holds a rig against it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rigs import three_camera_rig

from imkd_edge.bundle import Bundle
from imkd_edge.bundle import format as bundle_format
from imkd_edge.checks import doctor
from imkd_edge.rig import SensorRig
from imkd_edge.sources.synth import default_rig

WORLD = ["--option", "scenes=2", "--option", "frames_per_scene=3", "--option", "image=[160, 90]"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_format.SHIPPED / "tiny.imkd", tmp_path / "m.imkd"))


def manifest(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


def change(bundle: Path, **values: object) -> None:
    (bundle / "manifest.json").write_text(json.dumps({**manifest(bundle), **values}))


# ---- the verb ----
def test_a_contract_is_measured_and_written_into_the_manifest_alone(run, bundle: Path) -> None:
    before = manifest(bundle)
    outcome = run("contract", bundle, "--data", "synth", "--limit", "4", *WORLD, "--json")
    assert outcome.code == 0
    after = manifest(bundle)
    assert after["contract"] == outcome.json and {**after, "contract": before["contract"]} == before
    Bundle.load(bundle)  # verifies every byte
    contract, rig = outcome.json, default_rig((160, 90))
    assert (contract["data"], contract["frames"], contract["traffic"]) == ("synth, split train", 4, "right")
    assert contract["cameras"]["width"] == [160, 160] and contract["cameras"]["number"] == [len(rig.cameras)] * 2
    assert contract["radars"]["rate"] == pytest.approx(1 / 0.075, abs=0.01)  # the synthetic radars' period
    assert [item["name"] for item in contract["classes"]] == ["car", "truck", "pedestrian", "bicycle"]
    assert contract["trained"] == {"velocity": True}


def test_a_bundle_without_one_gets_one_and_inspect_prints_it(run, bundle: Path) -> None:
    change(bundle, contract=None)
    assert "no contract: unknown what it was trained on" in run("inspect", bundle).text
    text = run("contract", bundle, "--data", "synth", "--limit", "1", *WORLD).text
    for words in (
        "synth, split train",
        "1 of its frames were measured",
        "6, lenses none",
        "160 × 90 px",
        "5, velocity compensated",
    ):
        assert words in text and words in run("inspect", bundle).text


@pytest.mark.parametrize(
    ("arguments", "provenance", "code", "exit_code"),
    [
        (["--split", "test"], None, "E0307", 2),
        ([], {"data": "unknown"}, "E0410", 4),
        (["--option", "wheels=3"], None, "E0102", 2),
    ],
    ids=["split", "provenance", "option"],
)
def test_what_cannot_be_measured_leaves_the_bundle_as_it_was(
    run, bundle: Path, arguments: list[str], provenance: dict | None, code: str, exit_code: int
) -> None:
    if provenance:
        change(bundle, provenance=provenance)
    before = (bundle / "manifest.json").read_bytes()
    outcome = run("contract", bundle, "--data", "synth", *arguments)
    assert (outcome.code, f"error[{code}]" in outcome.stderr) == (exit_code, True), outcome.stderr
    assert (bundle / "manifest.json").read_bytes() == before


# ---- doctor ----
@pytest.fixture
def examine(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The check of a rig against a bundle, without those of the machine."""
    monkeypatch.setattr(doctor, "CHECKS", {})

    def call(bundle: Path | str, rig: SensorRig | str) -> tuple[int, list[dict]]:
        path = tmp_path / "rig.json"
        path.write_text(rig if isinstance(rig, str) else rig.to_json())
        outcome = run("doctor", bundle, "--rig", path, "--json")
        return outcome.code, outcome.json["checks"]

    return call


def test_a_rig_like_those_of_the_training_is_ok(examine) -> None:
    code, [check] = examine("tiny", default_rig())
    assert (code, check["status"], check["name"]) == (0, "ok", "contract tiny")
    assert "is like the rigs of synth, split train" in check["detail"]


def test_everything_unlike_the_training_is_a_warning_with_its_code(examine) -> None:
    code, checks = examine("tiny", three_camera_rig())
    assert code == 0 and {check["status"] for check in checks} == {"warn"}
    assert checks[0]["name"] == "rig" and "surround: 12 %" in checks[0]["detail"]  # a fisheye of 190 degrees
    assert [check["detail"].split()[0] for check in checks[1:]] == [
        "W0101",
        "W0104",
        "W0111",
        "W0113",
        "W0115",
        "W0116",
    ]
    assert all(check["fix"] for check in checks)


def test_a_bundle_without_a_contract_is_a_warning(examine, bundle: Path) -> None:
    change(bundle, contract=None)
    _, [check] = examine(bundle, default_rig())
    assert check["status"] == "warn" and "no contract" in check["detail"] and check["fix"] == "imkd-edge contract"


def test_a_rig_that_contradicts_itself_fails(examine) -> None:
    rig = json.loads(default_rig().to_json())
    rig["cameras"][0]["K"][0][0] = 0
    code, [check] = examine("tiny", json.dumps(rig))
    assert code == 3 and check["status"] == "fail" and "E0214" in check["detail"]


# ---- infer ----
def test_infer_writes_each_warning_once_where_it_begins(run, bundle: Path) -> None:
    contract = manifest(bundle)["contract"]
    contract["traffic"], contract["radars"]["number"] = "left", [6, 6]
    change(bundle, contract=contract)
    outcome = run("infer", "synth", "--bundle", bundle, "--frames", "s000-f000-s000-f002", *WORLD, "--json")
    lines = [line.split()[:2] for line in outcome.stderr.splitlines() if " W0" in line]
    assert lines == [["s000-f000:", code] for code in ("W0104", "W0114", "W0141")]
    for record in outcome.lines:
        assert [warning["code"] for warning in record["health"]["warnings"]] == ["W0104", "W0114", "W0141"]
        assert record["health"]["mode"] == "partial"
