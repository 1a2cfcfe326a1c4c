"""A bundle that differs from its manifest is refused, each fault with its code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import random_spec, write_random_bundle
from imkd_edge import Bundle, Error

FILES = ("camera.onnx", "bev.onnx", "golden.npz")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("attacks") / "good.imkd", random_spec(cameras=1))


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "under attack.imkd"))


def refused(folder: Path) -> Error:
    with pytest.raises(Error) as raised:
        Bundle.load(folder)
    error = raised.value
    assert error.what and error.fix and "under attack.imkd" in error.where
    return error


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def entry(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_the_bundle_under_attack_is_good(folder: Path) -> None:
    assert Bundle.load(folder).spec.to_json() == random_spec(cameras=1).to_json()
    edit(folder, lambda manifest: None)  # the manifest's layout is free
    assert Bundle.load(folder).manifest["schema"] == 1


def remove(*keys: str) -> Callable[[dict], None]:
    def change(manifest: dict) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        del manifest[keys[-1]]

    return change


def put(value: Any, *keys: str) -> Callable[[dict], None]:
    def change(manifest: dict) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return change


ENTRY = entry(b"x")
MANIFESTS: dict[str, tuple[str, Callable[[dict], Any]]] = {
    "no schema": ("E0404", remove("schema")),
    "no spec": ("E0404", remove("spec")),
    "no files": ("E0404", remove("files")),
    "no metrics": ("E0404", remove("metrics")),
    "no provenance": ("E0404", remove("provenance")),
    "no camera.onnx": ("E0404", remove("files", "camera.onnx")),
    "no bev.onnx": ("E0404", remove("files", "bev.onnx")),
    "no golden.npz": ("E0404", remove("files", "golden.npz")),
    "no sha256": ("E0404", remove("files", "bev.onnx", "sha256")),
    "no bytes": ("E0404", remove("files", "bev.onnx", "bytes")),
    "no key of the spec": ("E0404", remove("spec", "grid", "cell")),
    "extra key": ("E0403", put(1, "licence")),
    "extra key of a file": ("E0403", put(1, "files", "bev.onnx", "mode")),
    "extra key of the spec": ("E0403", put(1, "spec", "image", "depth")),
    "schema of the future": ("E0405", put(2, "schema")),
    "schema of the future with keys of the future": ("E0405", lambda m: m.update(schema=3, layers=[])),
    "schema 0": ("E0405", put(0, "schema")),
    "schema that is text": ("E0405", put("1", "schema")),
    "schema that is no whole number": ("E0405", put(1.0, "schema")),
    "schema true": ("E0405", put(True, "schema")),
    "spec of the future": ("E0405", put(99, "spec", "version")),
    "spec that is a list": ("E0402", put([], "spec")),
    "files that are a list": ("E0402", put([ENTRY], "files")),
    "file that is text": ("E0402", put("camera", "files", "camera.onnx")),
    "metrics that are a number": ("E0402", put(0.5, "metrics")),
    "provenance null": ("E0402", put(None, "provenance")),
    "NaN among the metrics": ("E0402", put(float("nan"), "metrics", "mAP")),
    "infinity among the metrics": ("E0402", put(float("inf"), "metrics", "mAP")),
    "spec value out of range": ("E0410", put(-1, "spec", "cameras")),
    "spec value of another type": ("E0410", put("704", "spec", "image", "width")),
    "spec that contradicts itself": ("E0410", put(7, "spec", "image", "stride")),
    "negative bytes": ("E0410", put(-1, "files", "bev.onnx", "bytes")),
    "bytes that are text": ("E0410", put("17", "files", "bev.onnx", "bytes")),
    "bytes that are no whole number": ("E0410", put(1e3, "files", "bev.onnx", "bytes")),
    "sha256 too short": ("E0410", put("00", "files", "bev.onnx", "sha256")),
    "sha256 in capitals": (
        "E0410",
        lambda m: m["files"]["bev.onnx"].update(sha256=m["files"]["bev.onnx"]["sha256"].upper()),
    ),
    "sha256 that is a number": ("E0410", put(0, "files", "bev.onnx", "sha256")),
    "sha256 of something else": ("E0407", put(hashlib.sha256(b"").hexdigest(), "files", "bev.onnx", "sha256")),
    "bytes one too many": ("E0407", lambda m: m["files"]["bev.onnx"].update(bytes=m["files"]["bev.onnx"]["bytes"] + 1)),
    "bytes beyond any file": ("E0407", put(2**63, "files", "bev.onnx", "bytes")),
    "a file that is not there": ("E0406", put(ENTRY, "files", "card.md")),
    "path to the parent": ("E0408", put(ENTRY, "files", "../secret")),
    "path through the parent": ("E0408", put(ENTRY, "files", "sub/../../secret")),
    "absolute path": ("E0408", put(ENTRY, "files", "/etc/passwd")),
    "path into a folder": ("E0408", put(ENTRY, "files", "sub/weights.bin")),
    "Windows path": ("E0408", put(ENTRY, "files", "..\\secret")),
    "Windows drive": ("E0408", put(ENTRY, "files", "C:secret")),
    "the folder itself": ("E0408", put(ENTRY, "files", ".")),
    "the parent folder": ("E0408", put(ENTRY, "files", "..")),
    "a nameless file": ("E0408", put(ENTRY, "files", "")),
    "a name with a NUL": ("E0408", put(ENTRY, "files", "bev.onnx\0.txt")),
    "a name with a line break": ("E0408", put(ENTRY, "files", "a\nb")),
    "a hidden name": ("E0408", put(ENTRY, "files", ".hidden")),
    "a name of 300 letters": ("E0408", put(ENTRY, "files", "a" * 300)),
    "the manifest itself": ("E0408", put(ENTRY, "files", "manifest.json")),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest(folder: Path, name: str) -> None:
    code, change = MANIFESTS[name]
    edit(folder, change)
    assert refused(folder).code == code


TEXTS: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"schema = 1\n",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "cut short": b'{"schema": 1, "spec": {"name": "t',
    "two documents": b"{}{}",
    "a comment": b'{"schema": 1} // one',
    "a trailing comma": b'{"schema": 1,}',
    "a number beyond a double": b'{"schema": 1e999}',
    "not UTF-8": b'{"schema\xff": 1}',
    "half a surrogate": b'{"\\ud800": 1}',
    "UTF-16": '{"schema": 1}'.encode("utf-16"),
    "a key given twice": b'{"schema": 1, "schema": 1}',
    "a nest of 100,000 lists": b"[" * 100_000,
    "a nest of 100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "above one mebibyte": b" " * (1 << 20) + b"{}",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_of_the_manifest(folder: Path, name: str) -> None:
    (folder / "manifest.json").write_bytes(TEXTS[name])
    assert refused(folder).code == "E0402"


@pytest.mark.parametrize("key", ["spec", "metrics", "provenance"])
def test_a_nest_inside_a_good_manifest(folder: Path, key: str) -> None:
    edit(folder, put("NEST", key))
    text = (folder / "manifest.json").read_text().replace('"NEST"', '{"a":' * 50_000 + "1" + "}" * 50_000)
    (folder / "manifest.json").write_text(text)
    assert refused(folder).code == "E0402"


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("byte", ["first", "middle", "last"])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_changed_bit(folder: Path, file: str, byte: str, bit: int) -> None:
    data = bytearray((folder / file).read_bytes())
    data[{"first": 0, "middle": len(data) // 2, "last": -1}[byte]] ^= 1 << bit
    (folder / file).write_bytes(data)
    error = refused(folder)
    assert error.code == "E0407" and file in error.where


FAULTS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "truncated by a byte": ("E0407", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "truncated to nothing": ("E0407", lambda path: path.write_bytes(b"")),
    "a byte longer": ("E0407", lambda path: path.write_bytes(path.read_bytes() + b"\0")),
    "removed": ("E0406", lambda path: path.unlink()),
    "a folder": ("E0406", lambda path: (path.unlink(), path.mkdir())),
    "a pipe": ("E0406", lambda path: (path.unlink(), os.mkfifo(path))),
    "a link to nowhere": ("E0406", lambda path: (path.unlink(), path.symlink_to("nowhere"))),
    "a link to itself": ("E0406", lambda path: (path.unlink(), path.symlink_to(path.name))),
    "a link to a file outside": (
        "E0408",
        lambda path: path.symlink_to(shutil.move(path, path.parent.parent / "elsewhere")),
    ),
    "a link to a device": ("E0408", lambda path: (path.unlink(), path.symlink_to("/dev/zero"))),
    "another file of the bundle": ("E0407", lambda path: shutil.copy(path.parent / "manifest.json", path)),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("file", FILES)
def test_file(folder: Path, name: str, file: str) -> None:
    code, damage = FAULTS[name]
    damage(folder / file)
    error = refused(folder)
    assert error.code == code and file in error.where


def test_a_file_that_the_manifest_does_not_list(folder: Path) -> None:
    """It would have no checksum."""
    (folder / "camera.onnx.data").write_bytes(b"weights")
    assert refused(folder).code == "E0403"


# ---- tensors in files that no checksum covers ----
def outside(field: int = 14) -> Any:
    """A tensor in ../outside.bin; field 13 only names the file, field 14 only marks the data as external."""
    from onnx import TensorProto, helper

    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])
    if field == 13:
        tensor.external_data.add(key="location", value="../outside.bin")
    else:
        tensor.data_location = TensorProto.EXTERNAL
    return tensor


def attribute(part: Any) -> Any:
    return part.graph.node.add(op_type="Constant", output=["c"]).attribute.add(name="value")


def sparse(part: Any, field: str) -> None:
    getattr(part.graph.sparse_initializer.add(), field).CopyFrom(outside())


LOCATIONS: dict[str, Callable[[Any], Any]] = {
    "an initializer": lambda part: part.graph.initializer.append(outside()),
    "an initializer that names a file": lambda part: part.graph.initializer.append(outside(13)),
    "the values of a sparse initializer": lambda part: sparse(part, "values"),
    "the indices of a sparse initializer": lambda part: sparse(part, "indices"),
    "an attribute": lambda part: attribute(part).t.CopyFrom(outside()),
    "a list of an attribute": lambda part: attribute(part).tensors.append(outside()),
    "a sparse attribute": lambda part: attribute(part).sparse_tensor.values.CopyFrom(outside()),
    "a list of sparse attributes": lambda part: attribute(part).sparse_tensors.add().indices.CopyFrom(outside()),
    "a branch": lambda part: attribute(part).g.initializer.append(outside()),
    "a branch of a branch": lambda part: (
        attribute(part).g.node.add().attribute.add().graphs.add().initializer.append(outside())
    ),
    "a function": lambda part: part.functions.add().node.add().attribute.add().t.CopyFrom(outside()),
    "a default of a function": lambda part: part.functions.add().attribute_proto.add().t.CopyFrom(outside()),
    "a training graph": lambda part: part.training_info.add().algorithm.initializer.append(outside()),
}


def replace_part(folder: Path, name: str, data: bytes) -> None:
    """Replaces a part and its entry in the manifest."""
    (folder / name).write_bytes(data)
    edit(folder, put(entry(data), "files", name))


@pytest.mark.parametrize("file", FILES[:2])
@pytest.mark.parametrize("location", LOCATIONS)
def test_a_part_with_a_tensor_in_another_file(folder: Path, location: str, file: str) -> None:
    onnx = pytest.importorskip("onnx")
    part = onnx.load_model_from_string((folder / file).read_bytes())
    LOCATIONS[location](part)
    replace_part(folder, file, part.SerializeToString())
    error = refused(folder)
    assert error.code == "E0408" and file in error.where and "another file" in error.what


def test_real_external_data_as_onnx_writes_it(folder: Path) -> None:
    """Also beside the part and listed in the manifest: the location in the part could be any other path."""
    onnx = pytest.importorskip("onnx")
    path = folder / "camera.onnx"
    external = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save_model(onnx.load_model_from_string(path.read_bytes()), str(path), **external)
    for name in ("camera.onnx", "weights.bin"):
        replace_part(folder, name, (folder / name).read_bytes())
    assert refused(folder).code == "E0408"


GROUP, END = b"\x9b\x06", b"\x9c\x06"  # of the unknown group 99
LONG_TAG = b"\xba\x80\x80\x80\x10"  # of field 7, with a bit beyond the 32nd


def message(field: int, payload: bytes) -> bytes:
    length, size = [], len(payload)
    while size >= 128:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([field << 3 | 2, *length, size]) + payload


TENSOR = message(5, b"\x70\x01")  # initializer: data_location = EXTERNAL
WIRES = {
    "as usual": message(7, TENSOR),
    "behind a group": message(7, GROUP + b"\x08\x01" + END + TENSOR),
    "behind fields of fixed size": message(7, b"\x99\x06" + bytes(8) + b"\x9d\x06" + bytes(4) + TENSOR),
    "in a second graph": message(7, b"") + message(7, TENSOR),
    "with a long tag": LONG_TAG + bytes([len(TENSOR)]) + TENSOR,
    "with a long number": message(7, message(5, b"\x70\x81\x80\x80\x80\x00")),
    "with a number beyond 32 bits": message(7, message(5, b"\x70\x81\x80\x80\x80\x10")),
}


@pytest.mark.parametrize("name", WIRES)
def test_external_data_is_found_in_every_encoding(folder: Path, name: str) -> None:
    replace_part(folder, "bev.onnx", WIRES[name])
    assert refused(folder).code == "E0408"


def test_deeply_nested_graphs_are_refused(folder: Path) -> None:
    graph = b""
    for _ in range(3000):
        graph = message(1, message(5, message(6, graph)))  # in an attribute of a node
    replace_part(folder, "bev.onnx", message(7, graph))
    assert refused(folder).code == "E0408"


def test_a_link_within_the_folder_is_a_file_like_any_other(folder: Path) -> None:
    data = (folder / "bev.onnx").read_bytes()
    (folder / "copy.onnx").symlink_to("bev.onnx")
    edit(folder, put(entry(data), "files", "copy.onnx"))
    assert Bundle.load(folder).file("copy.onnx").read_bytes() == data


def test_a_byte_order_mark_before_the_manifest_is_no_fault(folder: Path) -> None:
    text = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(b"\xef\xbb\xbf" + text)
    assert Bundle.load(folder).manifest == json.loads(text)


def test_an_error_names_a_file_whose_name_is_not_utf8(folder: Path) -> None:
    (folder / os.fsdecode(b"weights\xff.bin")).write_bytes(b"")
    error = refused(folder)
    assert error.code == "E0403" and "weights" in error.what


def test_a_missing_or_linked_manifest(folder: Path) -> None:
    shutil.move(folder / "manifest.json", folder.parent / "manifest.json")
    assert refused(folder).code == "E0406"
    (folder / "manifest.json").symlink_to(folder.parent / "manifest.json")
    assert refused(folder).code == "E0408"


def test_a_folder_that_is_not_there(folder: Path) -> None:
    assert refused(folder / "none").code == "E0401"
    assert refused(folder / "manifest.json").code == "E0401"


def test_a_link_to_a_bundle_is_a_bundle(folder: Path) -> None:
    link = folder.parent / "link.imkd"
    link.symlink_to(folder)
    assert Bundle.load(link).path == folder.resolve()


def test_a_changed_byte_of_the_manifest_is_harmless_or_refused(folder: Path) -> None:
    """After any change of a byte, loading gives a bundle or an Error 4xx."""
    text = (folder / "manifest.json").read_bytes()
    for at in range(0, len(text), 7):
        (folder / "manifest.json").write_bytes(text[:at] + bytes([text[at] ^ 0x11]) + text[at + 1 :])
        try:
            Bundle.load(folder)
        except Error as error:
            assert error.code.startswith("E04"), (at, str(error))
