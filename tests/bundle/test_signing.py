"""Signatures, made and verified as minisign describes them; who is trusted, and what a lax caller cannot undo."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signing import (
    FLEET,
    OTHER,
    SIGNATURE,
    STRANGER,
    InvalidSignature,
    encode,
    join,
    lines_of,
    sign,
    trust_folder,
    verify_by_hand,
)

from helpers import Recorder, bev_onnx, camera_onnx, random_spec, recorders, without_package, write_random_bundle
from imkd_edge import Bundle, Detector, Error
from imkd_edge.bundle import golden_rig, write_bundle
from imkd_edge.bundle.format import replace_contract
from imkd_edge.bundle.sign import read_secret_key, sign_bundle, write_key_pair

VARIABLE = "IMKD_EDGE_TRUST"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("signing") / "model.imkd", random_spec(cameras=2))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """An unsigned bundle."""
    return Path(shutil.copytree(made, tmp_path / "model.imkd"))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return trust_folder(tmp_path / "keys", FLEET)


def code_of(action: Callable[[], Any]) -> str:
    try:
        action()
    except Error as error:
        assert error.what and error.fix and error.where
        return error.code
    return ""


# ---- the format ----
@pytest.mark.parametrize("prehashed", [True, False])
def test_a_signature_made_by_hand_is_verified(folder: Path, keys: Path, prehashed: bool) -> None:
    sign(folder, FLEET, "by hand", prehashed)
    signature = Bundle.load(folder, keys).signature
    assert (signature.present, signature.checked) == (True, True)
    assert (signature.signer, signature.key_id, signature.comment) == ("fleet", FLEET.name, "by hand")
    assert str(signature) == f"signed by fleet (key {FLEET.name}): by hand"


def test_our_signature_is_verified_by_hand(folder: Path, tmp_path: Path) -> None:
    pair = write_key_pair(tmp_path / "k")
    signed = sign_bundle(folder, read_secret_key(pair["secret"]), revision=3)
    manifest, signature = (signed.path / name for name in ("manifest.json", SIGNATURE))
    public = Path(pair["public"]).read_text()
    assert verify_by_hand(manifest.read_bytes(), signature.read_bytes(), public) == "model random, revision 3"
    with pytest.raises(InvalidSignature):  # the check by hand can fail
        verify_by_hand(manifest.read_bytes() + b" ", signature.read_bytes(), public)
    assert public.startswith(f"untrusted comment: minisign public key {pair['key_id']}\n")


def test_a_key_pair_is_private_and_replaces_nothing(tmp_path: Path) -> None:
    pair = write_key_pair(tmp_path / "new" / "fleet")
    secret, public = Path(pair["secret"]), Path(pair["public"])
    assert (secret.name, public.name) == ("fleet.key", "fleet.pub")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    before = secret.read_bytes(), public.read_bytes()
    assert code_of(lambda: write_key_pair(tmp_path / "new" / "fleet.key")) == "E0702"
    secret.unlink()
    assert code_of(lambda: write_key_pair(tmp_path / "new" / "fleet")) == "E0702"  # its public key is still there
    assert before[1] == public.read_bytes() and sorted(os.listdir(secret.parent)) == ["fleet.pub"]


def test_two_key_pairs_differ(tmp_path: Path) -> None:
    a, b = (write_key_pair(tmp_path / name) for name in "ab")
    assert a["key_id"] != b["key_id"]
    assert Path(a["secret"]).read_bytes()[-100:] != Path(b["secret"]).read_bytes()[-100:]


def test_a_broken_secret_key_is_refused(tmp_path: Path) -> None:
    good = Path(write_key_pair(tmp_path / "k")["secret"]).read_text()
    head, text = good.splitlines()
    data = base64.b64decode(text)
    password = data[:2] + b"Sc" + data[4:]
    broken = {
        "empty": "", "no base64": f"{head}\n***\n", "cut": f"{head}\n{text[:-8]}\n", "public": FLEET.public_file(),
        "changed": f"{head}\n{base64.b64encode(data[:70] + bytes([data[70] ^ 1]) + data[71:]).decode()}\n",
        "password": f"{head}\n{base64.b64encode(password).decode()}\n",
        "halves of two keys": f"{head}\n{base64.b64encode(data[:94] + bytes(64)).decode()}\n",
    }  # fmt: skip
    for name, content in broken.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(Error, match="E0416") as raised:
            read_secret_key(tmp_path / name)
        assert ("minisign -S" in raised.value.fix) == (name == "password"), name
    assert code_of(lambda: read_secret_key(tmp_path / "none")) == "E0416"


def test_a_secret_key_of_minisign_is_read(tmp_path: Path) -> None:
    """minisign 0.11 -G -W: another comment, and 0 for the checksum."""
    seed_and_public = FLEET.private.private_bytes_raw() + FLEET.public
    data = b"Ed" + bytes(2) + b"B2" + bytes(48) + FLEET.key_id + seed_and_public + bytes(32)
    (tmp_path / "mini.key").write_text(f"untrusted comment: minisign encrypted secret key\n{encode(data)}\n")
    key = read_secret_key(tmp_path / "mini.key")
    assert (key.name, key.public) == (FLEET.name, FLEET.public)


def test_signing_without_cryptography_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch, "cryptography")
    with pytest.raises(Error, match=r"E0701.*imkd-edge\[sign\]"):
        write_key_pair(tmp_path / "k")
    assert not any(tmp_path.iterdir())


# ---- who is trusted ----
# How a bundle is signed -> the outcome without trust, off, and with a folder under warn and require.
OUTCOMES = {
    "unsigned": ("unsigned", "unsigned", "unsigned", "E0411"),
    "fleet": ("not verified", "not verified", "signed by fleet", "signed by fleet"),
    "stranger": ("not verified", "not verified", "E0413", "E0413"),
    "torn": ("not verified", "not verified", "E0414", "E0414"),
    "malformed": ("E0412", "E0412", "E0412", "E0412"),
}


def prepare(folder: Path, kind: str) -> None:
    if kind in ("fleet", "stranger"):
        sign(folder, FLEET if kind == "fleet" else STRANGER)
    elif kind == "torn":
        (folder / SIGNATURE).write_bytes(join(lines_of(b"another manifest", FLEET)))
    elif kind == "malformed":
        (folder / SIGNATURE).write_text("trust me\n")


def outcome(folder: Path, trust: Any) -> str:
    try:
        return str(Bundle.load(folder, trust).signature)
    except Error as error:
        return error.code


@pytest.mark.parametrize("kind", OUTCOMES)
def test_every_policy_has_its_outcome(folder: Path, keys: Path, kind: str) -> None:
    prepare(folder, kind)
    policies = None, "off", keys, f"require:{keys}"
    assert all(outcome(folder, trust).startswith(expected) for trust, expected in zip(policies, OUTCOMES[kind]))
    assert outcome(folder, f"warn:{keys}") == outcome(folder, str(keys))


@pytest.mark.parametrize("kind", OUTCOMES)
def test_the_environment_holds_for_callers_that_ask_for_less(
    folder: Path, keys: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(folder, kind)
    lax = trust_folder(tmp_path / "lax", FLEET, OTHER, STRANGER)
    for place, policy in enumerate(("off", str(keys), f"require:{keys}"), start=1):
        monkeypatch.setenv(VARIABLE, policy)
        for option in (None, "off"):
            assert outcome(folder, option).startswith(OUTCOMES[kind][place]), (policy, option)
    for option in (f"warn:{lax}", f"require:{lax}"):  # a folder of the caller's adds no key
        refused = outcome(folder, option)
        assert refused.startswith("signed by fleet" if kind == "fleet" else OUTCOMES[kind][3])


def test_a_caller_may_ask_for_more_than_the_environment(
    folder: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(trust_folder(tmp_path / "two", FLEET, OTHER)))
    assert outcome(folder, None) == "unsigned" and outcome(folder, f"require:{keys}") == "E0411"
    sign(folder, OTHER)
    assert outcome(folder, None).startswith("signed by other") and outcome(folder, keys) == "E0413"


def test_the_environment_holds_wherever_a_bundle_is_read(
    folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Bundle.load(folder)
    monkeypatch.setenv(VARIABLE, f"require:{keys}")
    assert code_of(lambda: Detector(folder)) == "E0411"
    assert code_of(lambda: Detector(str(folder), trust="off")) == "E0411"
    assert code_of(lambda: Bundle.load("tiny")) == "E0411"
    assert code_of(lambda: Bundle.load(loaded, "off")) == "E0411"  # loaded before, and now again


def test_a_bundle_that_was_loaded_is_verified_when_trust_is_asked_for(folder: Path, keys: Path) -> None:
    loaded = Bundle.load(folder)
    assert Bundle.load(loaded) is loaded
    assert code_of(lambda: Detector(loaded, trust=f"require:{keys}")) == "E0411"


WRONG_TRUST = [
    "nowhere",
    "require:nowhere",
    "require:",
    "require",
    "warn:",
    "requires:{keys}",
    "require:{keys}/fleet.pub",
]


@pytest.mark.parametrize("text", WRONG_TRUST)
@pytest.mark.parametrize("from_environment", [False, True])
def test_a_trust_that_cannot_be_followed_is_refused(
    folder: Path, keys: Path, text: str, from_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(folder, FLEET)
    text = text.format(keys=keys)
    if from_environment:
        monkeypatch.setenv(VARIABLE, text)
    assert code_of(lambda: Bundle.load(folder, None if from_environment else text)) == "E0416"


BAD_FOLDERS: dict[str, Callable[[Path], Any]] = {
    "empty": lambda keys: (keys / "fleet.pub").unlink(),
    "writable by all": lambda keys: keys.chmod(0o777),
    "a key writable by all": lambda keys: (keys / "fleet.pub").chmod(0o666),
    "a broken key": lambda keys: (keys / "more.pub").write_text("Ed\n"),
    "a secret key": lambda keys: Path(write_key_pair(keys / "more")["secret"]).rename(keys / "more.pub"),
    "a large key": lambda keys: (keys / "more.pub").write_bytes(bytes(5000)),
    "a folder as key": lambda keys: (keys / "more.pub").mkdir(),
    "a dangling link": lambda keys: (keys / "more.pub").symlink_to("none"),
    "a least revision that is empty": lambda keys: (keys / "least_revision").write_text(""),
    "a least revision that is text": lambda keys: (keys / "least_revision").write_text("three\n"),
    "a negative least revision": lambda keys: (keys / "least_revision").write_text("-1"),
    "a huge least revision": lambda keys: (keys / "least_revision").write_text("9" * 16),
    "two least revisions": lambda keys: (keys / "least_revision").write_text("1\n2\n"),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_bad_trust_folder_is_refused(folder: Path, keys: Path, name: str) -> None:
    sign(folder, FLEET)
    BAD_FOLDERS[name](keys)
    assert code_of(lambda: Bundle.load(folder, keys)) == "E0416"


def test_other_files_of_a_trust_folder_are_no_keys(folder: Path, keys: Path) -> None:
    (keys / "stranger.txt").write_text(STRANGER.public_file())
    sign(folder, STRANGER)
    assert outcome(folder, keys) == "E0413"


def test_keys_of_one_id_are_told_apart(folder: Path, keys: Path) -> None:
    """An id is no secret: anyone can make another key with it."""
    twin = type(STRANGER)(STRANGER.seed, FLEET.key_id)
    sign(folder, twin)
    assert outcome(folder, keys) == "E0414"
    (keys / "a twin.pub").write_text(twin.public_file())
    assert outcome(folder, keys).startswith("signed by a twin")
    sign(folder, FLEET)
    assert outcome(folder, keys).startswith("signed by fleet")


# ---- revisions ----
def test_a_rolled_back_revision_is_refused(folder: Path, tmp_path: Path) -> None:
    pair = write_key_pair(tmp_path / "pair" / "fleet")
    keys, key = tmp_path / "keys", read_secret_key(pair["secret"])
    keys.mkdir()
    shutil.copy(pair["public"], keys)
    for least, revision, expected in (
        (None, None, ""), ("0", None, ""), ("1", None, "E0415"), ("3\n", 2, "E0415"), ("3\n", 3, ""), ("3", 4, ""),
        (str(2**53 - 1), 2**53 - 2, "E0415"), (str(2**53 - 1), 2**53 - 1, ""),
    ):  # fmt: skip
        if least is not None:
            (keys / "least_revision").write_text(least)
        signed = sign_bundle(folder, key, tmp_path / "signed.imkd", revision)
        assert signed.revision == (revision or 0)
        refused = outcome(signed.path, f"require:{keys}")
        assert refused == expected or (not expected and refused.startswith("signed by fleet")), (least, revision)
    assert code_of(lambda: Bundle.load(folder, keys)) == "E0415"  # unsigned, and of no revision


@pytest.mark.parametrize("revision", [-1, 2**53])
def test_a_revision_out_of_range_is_refused(folder: Path, tmp_path: Path, revision: int) -> None:
    key = read_secret_key(write_key_pair(tmp_path / "k")["secret"])
    assert code_of(lambda: sign_bundle(folder, key, revision=revision)) == "E0410"
    assert not (folder / SIGNATURE).exists()


def test_the_revision_is_that_of_before_where_none_is_given(folder: Path, tmp_path: Path) -> None:
    key = read_secret_key(write_key_pair(tmp_path / "k")["secret"])
    sign_bundle(folder, key, revision=5)
    assert sign_bundle(folder, key).revision == 5


# ---- the bytes that were verified are those that are used ----
def test_a_file_changed_after_the_check_is_not_used(folder: Path) -> None:
    loaded = Bundle.load(folder)
    (folder / "camera.onnx").write_bytes(camera_onnx(random_spec(cameras=2), seed=9))
    (folder / "golden.npz").write_bytes(b"other")
    assert code_of(lambda: loaded.read("camera.onnx")) == "E0407"
    assert code_of(lambda: golden_rig(loaded)) == "E0407"
    assert code_of(lambda: Detector(loaded)) == "E0407"
    assert loaded.read("bev.onnx") == (folder / "bev.onnx").read_bytes()


def test_an_engine_gets_the_bytes_that_were_checked(folder: Path) -> None:
    """The file is replaced between the check and the engine's load."""
    loaded, given = Bundle.load(folder), list[bytes]()
    rig, parts = golden_rig(loaded), iter(recorders(loaded.spec))
    checked = [loaded.read(name) for name in ("camera.onnx", "bev.onnx")]

    def factory(threads: int) -> Recorder:
        for name in ("camera.onnx", "bev.onnx"):
            (folder / name).write_bytes(b"an attacker's")
        engine = next(parts)
        engine.load_content = lambda path, onnx: given.append(onnx)  # type: ignore[method-assign]
        return engine

    with Detector(loaded, rig, engine=factory):
        assert given == checked


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-native"])
def test_the_engines_of_onnx_runtime_read_no_file_again(folder: Path, engine: str) -> None:
    from imkd_edge.engines import engine_names, make_engine

    if engine not in engine_names():
        pytest.skip("no native engine")
    content = (folder / "camera.onnx").read_bytes()
    (folder / "camera.onnx").unlink()
    made = make_engine(engine, 1)
    made.load_content(str(folder / "camera.onnx"), content)
    assert [info.name for info in made.inputs()] == ["images"]


# ---- a detector says that its bundle is unsigned ----
def warnings_of(folder: Path, trust: Any) -> list[str]:
    from helpers import golden_sample

    sample = golden_sample(2)
    with Detector(folder, sample.rig, trust=trust) as detector:
        return [item.code for item in detector.infer_sample(sample).health.warnings if item.code == "W0151"]


def test_every_result_of_an_unsigned_bundle_says_so_where_trust_is_named(folder: Path, keys: Path) -> None:
    assert warnings_of(folder, keys) == ["W0151"] and warnings_of(folder, None) == []
    sign(folder, FLEET)
    assert warnings_of(folder, keys) == []


# ---- what is made of a signed bundle is unsigned ----
@pytest.fixture
def signed(folder: Path) -> Path:
    return sign(folder, FLEET)


def test_a_bundle_written_over_a_signed_one_is_unsigned(signed: Path, keys: Path) -> None:
    spec = random_spec(cameras=2)
    write_bundle(signed, spec, camera_onnx(spec), bev_onnx(spec), {"a": np.zeros(1)}, {}, {})
    assert not (signed / SIGNATURE).exists() and outcome(signed, keys) == "unsigned"


def test_another_contract_removes_the_signature(signed: Path, keys: Path) -> None:
    contract = Bundle.load("tiny").contract
    assert contract is not None
    names = [item.name for item in Bundle.load(signed).spec.head.classes]
    classes = tuple(replace(item, name=name) for item, name in zip(contract.classes, names, strict=False))
    replace_contract(Bundle.load(signed), replace(contract, classes=classes))
    assert not (signed / SIGNATURE).exists() and outcome(signed, keys) == "unsigned"


def test_a_bundle_of_another_number_of_cameras_is_unsigned(signed: Path, keys: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from imkd_edge.checks.cameras import export_with_cameras

    export_with_cameras(signed, 3, tmp_path / "three.imkd")
    assert outcome(tmp_path / "three.imkd", keys) == "unsigned"
    export_with_cameras(signed, 3, signed)  # in its place
    assert outcome(signed, keys) == "unsigned"


def test_a_signed_copy_has_the_bytes_of_the_bundle(folder: Path, tmp_path: Path) -> None:
    key = read_secret_key(write_key_pair(tmp_path / "k")["secret"])
    copy = sign_bundle(folder, key, tmp_path / "copy.imkd").path
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in copy.iterdir()) == sorted([*names, SIGNATURE])
    assert all((copy / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_a_failure_of_signing_in_place_leaves_the_bundle(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imkd_edge.bundle import format as bundle_format

    key = read_secret_key(write_key_pair(tmp_path / "k")["secret"])
    before = {path.name: path.read_bytes() for path in signed.iterdir()}

    def full(path: Path, data: bytes) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(bundle_format, "write_synced", full)
    assert code_of(lambda: sign_bundle(signed, key, revision=2)) == "E0702"
    assert {path.name: path.read_bytes() for path in signed.iterdir()} == before


# ---- without the library that verifies ----
def test_a_missing_libcrypto_is_an_error_where_a_signature_is_verified(
    folder: Path, keys: Path, tmp_path: Path
) -> None:
    """An empty library takes the place of OpenSSL's."""
    (tmp_path / "empty.c").write_text("")
    (tmp_path / "lib").mkdir()
    for name in ("libcrypto.so.3", "libcrypto.so.1.1"):
        command = ["cc", "-shared", "-o", str(tmp_path / "lib" / name), str(tmp_path / "empty.c")]
        subprocess.run(command, check=True)
    sign(folder, FLEET)
    script = f"""
import imkd_edge._core as core
print(core.Bundle.load({str(folder)!r}).signature.key_id)
try:
    core.Bundle.load({str(folder)!r}, {str(keys)!r})
except core.Error as error:
    print(error.code, error.fix)
"""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path / "lib")}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    claimed, refused = run.stdout.splitlines()
    assert claimed == FLEET.name and refused.startswith("E0704") and "libssl3" in refused
