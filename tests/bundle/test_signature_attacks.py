"""No attacked bundle is loaded where signatures are verified: 1,000 random attacks, and more than 200 aimed ones."""

from __future__ import annotations

import base64
import json
import os
import random
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from signing import FLEET, ORDER, OTHER, SIGNATURE, STRANGER, UNTRUSTED, encode, join, lines_of, sign, trust_folder

from helpers import bev_onnx, camera_onnx, random_spec
from imkd_edge import Bundle, Error
from imkd_edge.bundle import write_bundle

Files = dict[str, bytes]  # name -> content
CONTENT = ("camera.onnx", "bev.onnx", "golden.npz")
CHECKSUM, MALFORMED, UNKNOWN, WRONG = "E0407", "E0412", "E0413", "E0414"


def make(folder: Path, seed: int, key=FLEET) -> Files:
    spec = random_spec(cameras=1)
    golden = {"seed": np.array(seed)}
    write_bundle(folder, spec, camera_onnx(spec, seed), bev_onnx(spec, seed), golden, {}, {"seed": seed})
    sign(folder, key, f"model {seed}")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Range:
    """A signed bundle, others to take parts of, and a folder in which attacks are tried."""

    def __init__(self, root: Path) -> None:
        self.keys = trust_folder(root / "keys", FLEET, OTHER)
        self.good = make(root / "good.imkd", 1)
        self.second = make(root / "second.imkd", 2)  # by the same key
        self.others = make(root / "other.imkd", 3, OTHER)  # by another key that is trusted
        self.foreign = make(root / "foreign.imkd", 4, STRANGER)  # by a key that is not
        self.folder = root / "attacked.imkd"
        self.folder.mkdir()
        self.clean: Files = {}

    def put(self, files: Files) -> None:
        """Makes the folder hold exactly these files."""
        for path in self.folder.iterdir():
            if path.is_symlink() or not path.is_file() or path.name not in files:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        for name, data in files.items():
            (self.folder / name).write_bytes(data)

    def outcome(self, policy: str = "require") -> str:
        """The code with which the folder is refused; "" where it is loaded."""
        try:
            Bundle.load(self.folder, f"{policy}:{self.keys}")
        except Error as error:
            assert error.what and error.fix
            return error.code
        return ""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Range:
    return Range(tmp_path_factory.mktemp("attacks"))


def test_the_bundles_that_are_attacked_are_good(target: Range) -> None:
    for files, expected in ((target.good, ""), (target.second, ""), (target.others, ""), (target.foreign, UNKNOWN)):
        target.put(files)
        assert target.outcome() == expected


# ---- random ----
def mutate(data: bytes, draw: random.Random) -> bytes:
    at, length = draw.randrange(len(data)), draw.randint(1, 24)
    kind = draw.randrange(6)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + draw.randbytes(1) + data[at + 1 :]
    if kind == 2:
        return data[:at] + data[at + length :]
    if kind == 3:
        return data[:at] + draw.randbytes(length) + data[at:]
    if kind == 4:
        return data[:at]
    other = draw.randrange(len(data))
    return data[:at] + data[other : other + length] + data[at + length :]


def test_a_thousand_random_changes_are_refused(target: Range) -> None:
    draw, names = random.Random(20), sorted(target.good)
    expected = {name: {CHECKSUM} for name in CONTENT}
    expected |= {"manifest.json": {WRONG}, SIGNATURE: {MALFORMED, UNKNOWN, WRONG}}
    target.put(target.good)
    attacks = 0
    while attacks < 1000:
        name = draw.choice(names)
        changed = mutate(target.good[name], draw)
        if changed == target.good[name]:
            continue
        (target.folder / name).write_bytes(changed)
        assert target.outcome(draw.choice(["warn", "require"])) in expected[name], (attacks, name)
        (target.folder / name).write_bytes(target.good[name])
        attacks += 1
    assert target.outcome() == ""


# ---- aimed: (name, the files of the attacked bundle, the codes that refuse it) ----
Attack = tuple[str, Files, set[str]]


def mixtures(target: Range) -> Iterator[Attack]:
    """Every mixture of two bundles."""
    names = sorted(target.good)
    for title, other in (("second", target.second), ("others", target.others), ("foreign", target.foreign)):
        for count in range(1, len(names)):
            for taken in combinations(names, count):
                files = target.good | {name: other[name] for name in taken}
                foreign_signature = SIGNATURE in taken and other is target.foreign
                torn = ("manifest.json" in taken) != (SIGNATURE in taken)
                code = UNKNOWN if foreign_signature else WRONG if torn else CHECKSUM
                yield f"{title}: {', '.join(taken)}", files, {code}
    for one, two in combinations(CONTENT, 2):
        yield f"{one} and {two} exchanged", target.good | {one: target.good[two], two: target.good[one]}, {CHECKSUM}


def lines(target: Range) -> Iterator[Attack]:
    """Signatures whose four lines are changed."""

    def changed(name: str, new: list[str], *codes: str, end: str = "\n") -> Attack:
        return name, target.good | {SIGNATURE: join(new, end)}, set(codes)

    def swap(number: int, text: str) -> list[str]:
        return [*good[:number], text, *good[number + 1 :]]

    manifest = target.good["manifest.json"]
    good, second = target.good[SIGNATURE].decode().splitlines(), target.second[SIGNATURE].decode().splitlines()
    legacy = lines_of(manifest, FLEET, prehashed=False)
    for text in ("model 2", "model 1 ", " model 1", "Model 1", "", "model 1\x00", "modèle 1"):
        code = MALFORMED if "\x00" in text else WRONG
        yield changed(f"trusted comment {text!r}", swap(2, f"trusted comment: {text}"), code)
    for number in (1, 2, 3):
        yield changed(f"line {number} of another signature", swap(number, second[number]), WRONG)
        yield changed(f"line {number} of a legacy signature", swap(number, legacy[number]), WRONG)
    yield changed("no trusted comment", swap(2, "model 1"), MALFORMED)
    yield changed("another untrusted comment", swap(0, "untrusted comment: all is well"), MALFORMED)
    yield changed("no untrusted comment", swap(0, UNTRUSTED.split(": ")[1]), MALFORMED)
    for number in range(4):
        yield changed(f"without line {number}", good[:number] + good[number + 1 :], MALFORMED)
        yield changed(f"line {number} twice", good[: number + 1] + good[number:], MALFORMED)
        for title, text in (("space behind", good[number] + " "), ("space before", " " + good[number])):
            yield changed(
                f"{title} {number}", swap(number, text), WRONG if (number, title) == (2, "space behind") else MALFORMED
            )
        yield changed(f"carriage return behind {number}", swap(number, good[number] + "\r"), MALFORMED)
    for at in range(5):
        yield changed(f"empty line at {at}", [*good[:at], "", *good[at:]], MALFORMED)
    for one, two in combinations(range(4), 2):
        order = list(range(4))
        order[one], order[two] = two, one
        yield changed(f"lines {one} and {two} exchanged", [good[i] for i in order], MALFORMED)
    yield changed("line ends of Windows", good, MALFORMED, end="\r\n")
    yield changed("line ends of old Macs", good, MALFORMED, end="\r")
    yield changed("two signatures", good + second, MALFORMED)
    text = target.good[SIGNATURE]
    for title, data in {
        "empty": b"", "one line feed": b"\n", "no last line feed": text[:-1],
        "a byte order mark": b"\xef\xbb\xbf" + text,
        "UTF-16": text.decode().encode("utf-16"), "a NUL behind": text + b"\0", "only NULs": bytes(len(text)),
        "17 KiB": text + b"\n" * (17 << 10), "a JSON object": b"{}", "the manifest itself": manifest,
        "a public key": FLEET.public_file().encode(), "of another file": join(lines_of(target.good["bev.onnx"], FLEET)),
        "of nothing": join(lines_of(b"", FLEET)), "of the other typing": join([*legacy[:1], good[1], *legacy[2:]]),
    }.items():  # fmt: skip
        yield f"signature: {title}", target.good | {SIGNATURE: data}, {MALFORMED, WRONG}


def numbers(target: Range) -> Iterator[Attack]:
    """Signatures whose base64, key id, algorithm or numbers are changed."""
    good = target.good[SIGNATURE].decode().splitlines()
    first, second = (base64.b64decode(good[number]) for number in (1, 3))

    def changed(name: str, one: str, two: str, *codes: str) -> Attack:
        return name, target.good | {SIGNATURE: join([good[0], one, good[2], two])}, set(codes)

    for at in range(len(first)):
        code = {0: MALFORMED, 1: MALFORMED}.get(at, UNKNOWN if at < 10 else WRONG)
        yield changed(f"byte {at}", encode(first[:at] + bytes([first[at] ^ 1]) + first[at + 1 :]), good[3], code)
    for at in range(len(second)):
        yield changed(
            f"byte {at} of 2", good[1], encode(second[:at] + bytes([second[at] ^ 1]) + second[at + 1 :]), WRONG
        )
    yield changed("another algorithm", encode(b"Ed" + first[2:]), good[3], WRONG)
    yield changed("another trusted key's id", encode(b"ED" + OTHER.key_id + first[10:]), good[3], WRONG)
    yield changed("an unknown key's id", encode(b"ED" + STRANGER.key_id + first[10:]), good[3], UNKNOWN)
    imposter = lines_of(target.good["manifest.json"], STRANGER, "model 1")
    forged = base64.b64decode(imposter[1])
    yield changed(
        "a stranger's signature with our key id", encode(b"ED" + FLEET.key_id + forged[10:]), imposter[3], WRONG
    )
    for title, scalar in (("S + L", ORDER), ("S - L", -ORDER)):  # RFC 8032: S must be below L
        for number, data, at in ((1, first, 10), (3, second, 0)):
            value = (int.from_bytes(data[at + 32 :], "little") + scalar) % 2**256
            text = encode(data[: at + 32] + value.to_bytes(32, "little"))
            yield changed(f"{title} in {number}", *((text, good[3]) if number == 1 else (good[1], text)), WRONG)
    zero, identity = bytes(64), b"\x01" + bytes(63)
    for title, data in (("zeros", zero), ("the identity", identity)):
        yield changed(title, encode(first[:10] + data), good[3], WRONG)
        yield changed(f"{title} in both", encode(first[:10] + data), encode(data), WRONG)
    for number, text in ((1, good[1]), (3, good[3])):
        last = text.rstrip("=")
        spare = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        for title, damaged in {
            "no padding": last, "more padding": text + "=", "four more": text + "====", "cut by 4": text[:-4],
            "cut by 1": text[:-1], "a byte more": encode(base64.b64decode(text) + b"\0"),
            "a space inside": text[:8] + " " + text[8:],
            "a tab inside": text[:8] + "\t" + text[8:], "a star": "*" + text[1:], "padding first": "=" + text[1:],
            "padding inside": text[:8] + "=" + text[9:],
            "the URL alphabet": text.replace("+", "-").replace("/", "_") + "-", "hex": base64.b64decode(text).hex(),
            "spare bits": last[:-1] + spare[spare.index(last[-1]) | 1] + text[len(last) :],
            "lower case": text.lower(), "empty": "",
        }.items():  # fmt: skip
            parts = (damaged, good[3]) if number == 1 else (good[1], damaged)
            codes = (MALFORMED, UNKNOWN, WRONG) if title == "lower case" else (MALFORMED,)
            yield changed(f"base64 {number}: {title}", *parts, *codes)


def manifests(target: Range) -> Iterator[Attack]:
    """Manifests that say something else, or the same in another form, beside the old signature."""
    text = target.good["manifest.json"]
    value = json.loads(text)
    hashes = {name: value["files"][name] for name in CONTENT}
    swapped = {**value, "files": {**hashes, "camera.onnx": hashes["bev.onnx"], "bev.onnx": hashes["camera.onnx"]}}
    parts = {"camera.onnx": target.good["bev.onnx"], "bev.onnx": target.good["camera.onnx"]}
    own = json.loads(target.second["manifest.json"])
    forms = {
        "minified": json.dumps(value).encode(), "a space behind": text + b" ", "a line behind": text + b"\n",
        "a byte order mark": b"\xef\xbb\xbf" + text, "UTF-16": text.decode().encode("utf-16"), "empty": b"",
        "cut": text[:-2], "two": text + text, "revision 9": json.dumps({**value, "revision": 9}).encode(),
        "a key twice": text.replace(b'"files"', b'"files": {}, "files"', 1),
        "a hash twice": text.replace(b'"sha256"', b'"sha256": "", "sha256"', 1),
        "a comment": text.replace(b"{", b"{ // trusted\n", 1), "no files": json.dumps({**value, "files": {}}).encode(),
        "other metrics": json.dumps({**value, "metrics": {"mAP": 0.99}}).encode(),
        "the signature in itself": json.dumps({**value, "files": {**hashes, SIGNATURE: hashes["bev.onnx"]}}).encode(),
        "schema 2": json.dumps({**value, "schema": 2}).encode(),
        "the hash of a part that an attacker made": json.dumps({**value, "files": own["files"]}).encode(),
    }  # fmt: skip
    for title, data in forms.items():
        yield f"manifest: {title}", target.good | {"manifest.json": data}, {WRONG}
    own_parts = {name: target.second[name] for name in CONTENT}
    fitting = forms["the hash of a part that an attacker made"]
    yield "manifest and parts of an attacker", target.good | own_parts | {"manifest.json": fitting}, {WRONG}
    yield "hashes and parts exchanged", target.good | parts | {"manifest.json": json.dumps(swapped).encode()}, {WRONG}


def additions(target: Range) -> Iterator[Attack]:
    for name in (
        "more.onnx",
        ".hidden",
        "camera.onnx.minisig",
        "manifest.json~",
        "manifest.json.minisig.old",
        "MANIFEST.JSON",
    ):
        yield f"a file {name} more", target.good | {name: b"x"}, {"E0403"}
    for name in CONTENT:
        files = dict(target.good)
        del files[name]
        yield f"no {name}", files, {"E0406"}
    yield "no signature", {n: d for n, d in target.good.items() if n != SIGNATURE}, {"E0411"}
    unsigned = {n: d for n, d in target.second.items() if n != SIGNATURE}
    yield "an unsigned bundle", unsigned, {"E0411"}
    yield "no manifest", {n: d for n, d in target.good.items() if n != "manifest.json"}, {"E0406"}


def test_aimed_attacks_are_refused_each_with_its_code(target: Range) -> None:
    tried: list[str] = []
    for kind in (mixtures, lines, numbers, manifests, additions):
        for name, files, codes in kind(target):
            assert files != target.good, name
            target.put(files)
            assert target.outcome() in codes, (kind.__name__, name, target.outcome())
            tried.append(name)
    assert len(set(tried)) == len(tried) > 200
    target.put(target.good)
    assert target.outcome() == ""


# ---- aimed at the folder itself ----
def link(target: Range, name: str, to: Path) -> None:
    (target.folder / name).unlink()
    (target.folder / name).symlink_to(to)


PLACES: dict[str, tuple[str, Callable[[Range], None]]] = {
    **{
        f"{name} a link to the same bytes elsewhere": (
            "E0408",
            lambda t, n=name: link(t, n, t.folder.parent / "good.imkd" / n),
        )
        for name in (*CONTENT, "manifest.json", SIGNATURE)
    },
    "signature a link to nothing": ("E0406", lambda t: link(t, SIGNATURE, t.folder / "none")),
    "signature a link to itself": ("E0406", lambda t: link(t, SIGNATURE, t.folder / SIGNATURE)),
    "signature a link to the manifest": (MALFORMED, lambda t: link(t, SIGNATURE, Path("manifest.json"))),
    "manifest a link to the signature": (WRONG, lambda t: link(t, "manifest.json", Path(SIGNATURE))),
    "camera.onnx a link to bev.onnx": (CHECKSUM, lambda t: link(t, "camera.onnx", Path("bev.onnx"))),
    "a folder more": ("E0403", lambda t: (t.folder / "more").mkdir()),
    "a link more": ("E0403", lambda t: (t.folder / "more").symlink_to("bev.onnx")),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_links_and_folders_are_refused(target: Range, name: str) -> None:
    code, attack = PLACES[name]
    target.put(target.good)
    attack(target)
    assert target.outcome() == code


def test_a_signature_that_is_a_pipe_or_a_folder_is_refused(target: Range) -> None:
    for make_other in (os.mkfifo, os.mkdir):
        target.put(target.good)
        (target.folder / SIGNATURE).unlink()
        make_other(target.folder / SIGNATURE)
        assert target.outcome() == "E0406"


def test_a_signed_manifest_is_checked_like_any_other(target: Range) -> None:
    """What a trusted key signed by mistake: each fault keeps its code."""
    text = target.good["manifest.json"]
    value = json.loads(text)
    listed = {**value, "files": {**value["files"], SIGNATURE: value["files"]["bev.onnx"]}}
    for manifest, code in (
        (text.replace(b'"files"', b'"files": {}, "files"', 1), "E0402"),
        (json.dumps(listed).encode(), "E0408"),
        (json.dumps({**value, "revision": -1}).encode(), "E0410"),
        (json.dumps({**value, "revision": 2**53}).encode(), "E0410"),
        (json.dumps({**value, "revision": "2"}).encode(), "E0410"),
        (json.dumps({**value, "revision": 1.5}).encode(), "E0410"),
    ):
        target.put(target.good | {"manifest.json": manifest, SIGNATURE: join(lines_of(manifest, FLEET))})
        assert target.outcome() == code, manifest[-80:]
