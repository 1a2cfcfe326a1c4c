"""Bundle: a model in one folder, NAME.imkd, whose manifest lists every file with its size and SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

import imkd_edge._core as _core
from imkd_edge.bundle.contract import Contract
from imkd_edge.bundle.files import npz_bytes, write_atomically, write_synced
from imkd_edge.errors import Code, Error
from imkd_edge.options import CHECKPOINT
from imkd_edge.spec import ModelSpec

SHIPPED = Path(__file__).parents[1] / "bundles"
RENAMED = {"astyx-imkd": "astyx-taught"}  # former name -> name of a shipped bundle
PARTS = ("camera", "bev")  # each an ONNX file of this name
MANIFEST, SIGNATURE = "manifest.json", "manifest.json.minisig"


@dataclass(frozen=True)
class Signature:
    """What a bundle's signature says, a file of minisign's format over its manifest."""

    present: bool = False
    checked: bool = False  # a folder of trusted keys was named; a signature that is present is then valid
    key_id: str = ""  # as minisign prints it; without `checked` only claimed
    signer: str = ""  # name of that key's file in the folder, without .pub; "" unless checked
    comment: str = ""  # signed, too; "" unless checked

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.present:
            return "unsigned"
        if not self.checked:
            return f"not verified: signed with the key {self.key_id}, and no folder of trusted keys is named"
        return f"signed by {self.signer} (key {self.key_id}): {self.comment}"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files match the checksums of its manifest."""

    path: Path
    spec: ModelSpec
    manifest: dict[str, Any]
    contract: Contract | None = None  # None: the bundle was made before contracts
    revision: int = 0  # rises with every bundle that is given to vehicles; 0: none in the manifest
    signature: Signature = Signature()
    core: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def load(cls, bundle: str | os.PathLike[str] | Bundle, trust: str | os.PathLike[str] | None = None) -> Bundle:
        """Reads and checks a bundle.

        Args:
            bundle: path of a folder, or the name of a shipped bundle such as "tiny"; a Bundle is returned unchanged,
                or with `trust` loaded again.
            trust: a folder of public keys, NAME.pub of `imkd-edge keygen`, as "FOLDER" or "warn:FOLDER" (an unsigned
                bundle is loaded) or "require:FOLDER" (it is refused). A signature that is present must be valid, of
                one of these keys, and the revision at least the number in FOLDER/least_revision, where that is. None
                or "off": signatures are not verified. The environment variable IMKD_EDGE_TRUST, of the same form,
                holds as well: the stricter of both wins.

        Raises:
            Error: 401 to 416, 704 no library that verifies signatures.
        """
        policy = "" if trust is None else os.fspath(trust)
        if trust is not None and not policy:
            fix = 'give a folder of public keys, "off", or None'
            raise Error(Code.trust_bad_value, "is empty", "trust", fix)
        if isinstance(bundle, Bundle):
            if not policy:
                return bundle
            bundle = bundle.path
        core = _core.Bundle.load(str(find(bundle)), policy)
        contract = None if core.contract is None else Contract.from_core(core.contract)
        signature = Signature(**{item.name: getattr(core.signature, item.name) for item in fields(Signature)})
        manifest = json.loads(core.manifest.encode())  # of bytes: the core allows a byte order mark
        return cls(Path(core.path), core.spec, manifest, contract, core.revision, signature, core)

    def file(self, name: str) -> Path:
        """Path of a file in the manifest; raises Error bundle_missing_file for any other name."""
        if name not in self.manifest["files"]:
            known = ", ".join(sorted(self.manifest["files"]))
            raise Error(Code.bundle_missing_file, f"the bundle has no file {name}", str(self.path), f"it has {known}")
        return self.path / name

    def read(self, name: str) -> bytes:
        """The content of a file, checked again; raises Error bundle_checksum where it was changed since load."""
        self.file(name)
        return self.core.read(name)


def shipped() -> list[str]:
    """Names of the bundles in the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.imkd") if path.is_dir())


def find(bundle: str | os.PathLike[str]) -> Path:
    """The folder of a bundle given by its path or its shipped name; a shipped name takes precedence.

    Raises:
        Error: bundle_missing where there is no such folder, bundle_bad_path for a name that is not UTF-8.
    """
    if isinstance(bundle, str) and (name := RENAMED.get(bundle, bundle)) in shipped():
        return SHIPPED / f"{name}.imkd"
    if not os.path.isdir(bundle):  # unlike Path.is_dir no OSError, for example of a name that is too long
        names = ", ".join(shipped()) or "none"
        fix = f"give the path of a folder NAME.imkd, or the name of a shipped bundle: {names}"
        raise Error(Code.bundle_missing, f'there is no bundle "{os.fspath(bundle)}"', os.fspath(bundle), fix)
    if os.path.isfile(os.path.join(bundle, CHECKPOINT)):
        fix = f"write its bundle: imkd-edge export {os.fspath(bundle)} --out NAME.imkd"
        raise Error(Code.bundle_missing, "it is the folder of a training, not a bundle", os.fspath(bundle), fix)
    try:
        os.fspath(bundle).encode()
    except UnicodeEncodeError:
        problem = "the name of the folder is not UTF-8"
        raise Error(Code.bundle_bad_path, problem, os.fspath(bundle), "rename it") from None
    return Path(bundle)


def bundle_name(bundle: str | os.PathLike[str]) -> str:
    """The short name of a bundle's folder, for titles."""
    return Path(bundle).name.removesuffix(".imkd")


def write_bundle(
    folder: str | os.PathLike[str],
    spec: ModelSpec,
    camera_onnx: bytes,
    bev_onnx: bytes,
    golden: Mapping[str, np.ndarray],
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    extra: Mapping[str, bytes] | None = None,
    contract: Contract | None = None,
) -> Bundle:
    """Writes a bundle to a temporary folder, loads it, then renames it; only an old bundle may be replaced.

    Args:
        folder: path ending in .imkd.
        spec: the constants of the model.
        camera_onnx, bev_onnx: the two parts.
        golden: the arrays of golden.npz, from `make_golden`.
        metrics: name -> finite number, or a dict of these.
        provenance: data, licence, commit, seed and other JSON values.
        extra: name -> content of further files, e.g. {"card.md": b"..."}.
        contract: what the model was trained on, from `imkd_edge.checks.contract.measure`; None: unknown.

    Raises:
        Error: bundle_bad_value for values without a JSON form (NaN included), bundle_* for what Bundle.load rejects,
            write_failed for an error of the disk, and for a target that is not a bundle (`check_target`).
    """
    files = {"camera.onnx": camera_onnx, "bev.onnx": bev_onnx, "golden.npz": npz_bytes(golden), **(extra or {})}
    return write_files(folder, {**files, MANIFEST: _manifest(spec, files, metrics, provenance, contract)})


def write_files(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> Bundle:
    """Writes the files of a bundle, its manifest among them, as `write_bundle` does.

    Raises:
        Error: bundle_* for what Bundle.load rejects, write_failed.
    """
    check_target(folder)
    target = Path(folder).absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            for name, data in files.items():
                _write_file(new, name, data)
            Bundle.load(new)
            _replace(target, new, Path(temporary) / "old")  # the old bundle is deleted with the temporary folder
    except OSError as error:
        fix = "free space, or choose another folder"
        raise Error(Code.write_failed, f"the bundle cannot be written: {error}", str(target), fix) from error
    return Bundle.load(target)


def check_target(folder: str | os.PathLike[str]) -> None:
    """Checks that writing a bundle to this path deletes nothing but an old bundle.

    Raises:
        Error: write_failed where the path is something else, or a bundle with files that its manifest does not list.
    """
    target = Path(folder)
    if not os.path.lexists(target):
        return
    fix = "choose another folder with --out, or move it away"
    try:
        listed = {MANIFEST, SIGNATURE, *json.loads((target / MANIFEST).read_bytes())["files"]}
        foreign = sorted({entry.name for entry in target.iterdir()} - listed)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise Error(Code.write_failed, "the target exists and is not a bundle", str(target), fix) from None
    if foreign:
        problem = f"the old bundle holds a file that its manifest does not list: {foreign[0]}"
        raise Error(Code.write_failed, problem, str(target), fix)


def replace_contract(bundle: Bundle, contract: Contract) -> Bundle:
    """Writes another contract into the manifest of a bundle; its files stay as they are, a signature is removed.

    Raises:
        Error: bundle_bad_value for a contract of other classes, write_failed.
    """
    core = contract.core()
    core.check(bundle.spec)
    manifest = {**bundle.manifest, "contract": json.loads(core.to_json())}
    (bundle.path / SIGNATURE).unlink(missing_ok=True)  # before the manifest that it is not of
    write_atomically(bundle.path / MANIFEST, canonical_json(manifest))
    return Bundle.load(bundle.path)


def _manifest(
    spec: ModelSpec,
    files: Mapping[str, bytes],
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    contract: Contract | None,
) -> bytes:
    entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    manifest = {
        "schema": _core.Bundle.kVersion,
        "spec": json.loads(spec.to_json()),
        "contract": None if contract is None else json.loads(contract.to_json()),
        "files": entries,
        "metrics": dict(metrics),
        "provenance": dict(provenance),
    }
    return canonical_json(manifest)


def _replace(target: Path, new: Path, old: Path) -> None:
    """Renames `new` to `target`, and the bundle at `target` to `old`; restores it where the first fails."""
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise


def canonical_json(value: Any) -> bytes:
    """The text of a manifest: the same values give the same bytes."""
    try:
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False, default=_plain)
    except (ValueError, TypeError) as error:
        problem = f"the manifest cannot be written as JSON: {error}"
        fix = "metrics and provenance take finite numbers, text, lists and objects"
        raise Error(Code.bundle_bad_value, problem, "manifest.json", fix) from error
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _write_file(folder: Path, name: str, data: bytes) -> None:
    if Path(name).name != name:
        problem = f'"{name}" is not a plain file name'
        raise Error(Code.bundle_bad_path, problem, str(folder), "a bundle is one flat folder: give names without /")
    write_synced(folder / name, data)
