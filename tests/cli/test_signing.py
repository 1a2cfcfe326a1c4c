"""keygen, export --sign, and what inspect, doctor and infer say of a signature."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from signing import SIGNATURE

from helpers import random_spec, write_random_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("cli") / "model.imkd", random_spec())


@pytest.fixture
def fleet(run, made: Path, tmp_path: Path) -> Path:
    """A folder with pair/fleet.key, pair/fleet.pub, keys/fleet.pub and the signed bundle new.imkd."""
    assert run("keygen", tmp_path / "pair" / "fleet").code == 0
    (tmp_path / "keys").mkdir()
    shutil.copy(tmp_path / "pair" / "fleet.pub", tmp_path / "keys")
    key = tmp_path / "pair" / "fleet.key"
    outcome = run("export", made, "--sign", key, "--revision", 4, "--out", tmp_path / "new.imkd", "--json")
    assert outcome.code == 0 and outcome.json["revision"] == 4
    return tmp_path


def test_keygen_prints_both_files_and_replaces_none(run, tmp_path: Path) -> None:
    made = run("keygen", tmp_path / "a", "--json").json
    assert set(made) == {"key_id", "secret", "public"} and len(made["key_id"]) == 16
    assert stat.S_IMODE(Path(made["secret"]).stat().st_mode) == 0o600
    again = run("keygen", tmp_path / "a.key")
    assert again.code == 3 and "error[E0702]" in again.stderr and again.stdout == ""


def test_export_signs_a_copy_or_the_bundle_itself(run, fleet: Path, made: Path) -> None:
    assert not (made / SIGNATURE).exists()
    signed = fleet / "new.imkd"
    before = (signed / SIGNATURE).read_bytes()
    again = run("export", signed, "--sign", fleet / "pair" / "fleet.key", "--revision", 5, "--out", signed)
    assert again.code == 0 and (signed / SIGNATURE).read_bytes() != before
    assert run("inspect", signed, "--trust", f"require:{fleet / 'keys'}", "--json").json["revision"] == 5


def test_export_with_other_cameras_signs_the_new_bundle(run, fleet: Path) -> None:
    pytest.importorskip("onnx")
    key, keys = fleet / "pair" / "fleet.key", f"require:{fleet / 'keys'}"
    unsigned = run("export", fleet / "new.imkd", "--cameras", 2, "--out", fleet / "two.imkd")
    assert unsigned.code == 0 and run("inspect", fleet / "two.imkd", "--trust", keys).code == 4
    signed = run("export", fleet / "new.imkd", "--cameras", 2, "--sign", key, "--out", fleet / "two.imkd")
    assert signed.code == 0 and run("inspect", fleet / "two.imkd", "--trust", keys).code == 0


@pytest.mark.parametrize("verb", ["inspect", "doctor"])
def test_inspect_says_who_signed(run, fleet: Path, made: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if verb == "doctor":  # its other checks take long, and are not of this test
        monkeypatch.setattr("imkd_edge.checks.doctor.CHECKS", {})
    keys = fleet / "keys"
    signed = run(verb, fleet / "new.imkd", "--trust", keys)
    assert signed.code == 0 and "signed by fleet (key " in signed.text and "revision 4" in signed.text
    unsigned = run(verb, made, "--trust", keys)
    assert unsigned.code == 0 and "unsigned" in unsigned.text
    refused = run(verb, made, "--trust", f"require:{keys}")
    assert refused.code == (4 if verb == "inspect" else 3) and "E0411" in refused.stderr + refused.text


def test_inspect_without_a_trust_folder_says_that_nothing_was_verified(run, fleet: Path) -> None:
    assert "not verified" in run("inspect", fleet / "new.imkd").text
    signature = run("inspect", fleet / "new.imkd", "--json").json["signature"]
    assert signature == {
        "present": True, "checked": False, "key_id": signature["key_id"], "signer": "", "comment": "",
    }  # fmt: skip


def test_doctor_on_a_fleet_warns_of_shipped_bundles_and_does_not_fail(
    run, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imkd_edge.checks import doctor

    some = {name: doctor.CHECKS[name] for name in ("signatures", "bundles")}
    monkeypatch.setattr("imkd_edge.checks.doctor.CHECKS", some)
    monkeypatch.setenv("IMKD_EDGE_TRUST", f"require:{fleet / 'keys'}")
    outcome = run("doctor", "--json")
    checks = {check["name"]: check for check in outcome.json["checks"]}
    assert outcome.code == 0 and "require:" in checks["signatures"]["detail"]
    assert checks["bundle tiny"]["status"] == "warn" and "IMKD_EDGE_TRUST" in checks["bundle tiny"]["detail"]


def test_infer_refuses_and_warns(run, fleet: Path, made: Path) -> None:
    frame = ("synth", "--option", "scenes=1", "--option", "frames_per_scene=1", "--json")
    refused = run("infer", *frame, "--bundle", made, "--trust", f"require:{fleet / 'keys'}")
    assert refused.code == 4 and "error[E0411]" in refused.stderr and refused.stdout == ""
    warned = run("infer", *frame, "--bundle", made, "--trust", fleet / "keys")
    assert warned.code == 0 and "W0151" in json.dumps(warned.lines[0]["health"]["warnings"])
    signed = run("infer", *frame, "--bundle", fleet / "new.imkd", "--trust", f"require:{fleet / 'keys'}")
    assert signed.code == 0 and "W0151" not in signed.stdout


def test_options_that_would_be_ignored_are_refused(run, fleet: Path) -> None:
    assert run("export", "tiny", "--revision", 3, "--cameras", 6, "--out", fleet / "x.imkd").code == 2
    outcome = run("export", "tiny", "--sign", fleet / "none.key", "--out", fleet / "x.imkd")
    assert outcome.code == 4 and "error[E0416]" in outcome.stderr and not (fleet / "x.imkd").exists()
