"""Bundle: a model in one folder, NAME.imkd, that says what is in it and notices when a byte changes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import imkd_edge._core as _core
from imkd_edge.bundle.files import npz_bytes, write_synced
from imkd_edge.errors import Code, Error
from imkd_edge.spec import ModelSpec

SHIPPED = Path(__file__).parents[1] / "bundles"
PARTS = ("camera", "bev")  # each an ONNX file of this name


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every byte has been checked."""

    path: Path
    spec: ModelSpec
    manifest: dict[str, Any]

    @classmethod
    def load(cls, bundle: str | os.PathLike[str] | Bundle) -> Bundle:
        """Reads and checks a bundle.

        Args:
            bundle: path of a folder, or the name of a shipped bundle such as "tiny".

        Raises:
            Error: 401 to 410 (bundle_*), each with what is wrong, where, and how to mend it.
        """
        if isinstance(bundle, Bundle):
            return bundle
        core = _core.Bundle.load(str(find(bundle)))
        return cls(Path(core.path), core.spec, json.loads(core.manifest))

    def file(self, name: str) -> Path:
        """Path of one of the files that the manifest names."""
        if name not in self.manifest["files"]:
            known = ", ".join(sorted(self.manifest["files"]))
            raise Error(Code.bundle_missing_file, f"the bundle has no file {name}", str(self.path), f"it has {known}")
        return self.path / name


def shipped() -> list[str]:
    """Names of the bundles that came with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.imkd") if path.is_dir())


def find(bundle: str | os.PathLike[str]) -> Path:
    """The folder meant by a path or by a shipped name; a bare name means the shipped bundle where there is one."""
    if isinstance(bundle, str) and bundle in shipped():
        return SHIPPED / f"{bundle}.imkd"
    if not os.path.isdir(bundle):  # unlike Path.is_dir no OSError, for example of a name that is too long
        names = ", ".join(shipped()) or "none"
        fix = f"give the path of a folder NAME.imkd, or the name of a shipped bundle: {names}"
        raise Error(Code.bundle_missing, f'there is no bundle "{os.fspath(bundle)}"', os.fspath(bundle), fix)
    try:
        os.fspath(bundle).encode()
    except UnicodeEncodeError:
        raise Error(
            Code.bundle_bad_path, "the name of the folder is not UTF-8", os.fspath(bundle), "rename it"
        ) from None
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
) -> Bundle:
    """Writes a bundle, checks it as a reader would, and only then gives it its name; an old bundle of that name is replaced, nothing else.

    Args:
        folder: path ending in .imkd.
        golden: what `make_golden` returned.
        metrics: names to finite numbers (may be nested).
        provenance: data, licence, commit, seed, ...: whatever JSON can say.
        extra: more files by name, e.g. {"card.md": b"..."}.

    Raises:
        Error: bundle_bad_value for what JSON cannot say (NaN included), bundle_* for what a reader would refuse,
            write_failed when the disk does, and for a target that is not a bundle (`check_target`).
    """
    check_target(folder)
    files = {"camera.onnx": camera_onnx, "bev.onnx": bev_onnx, "golden.npz": npz_bytes(golden), **(extra or {})}
    manifest = {
        "schema": _core.Bundle.kVersion,
        "spec": json.loads(spec.to_json()),
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
        },
        "metrics": dict(metrics),
        "provenance": dict(provenance),
    }
    files["manifest.json"] = _canonical_json(manifest)
    target = Path(folder).absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
            made = Path(beside) / "new"
            made.mkdir()
            for name, data in files.items():
                _write_file(made, name, data)
            Bundle.load(made)
            _replace(target, made, Path(beside) / "old")  # what was there goes with the temporary folder
    except OSError as error:
        raise Error(
            Code.write_failed,
            f"the bundle cannot be written: {error}",
            str(target),
            "free space, or choose another folder",
        ) from error
    return Bundle.load(target)


def check_target(folder: str | os.PathLike[str]) -> None:
    """Raises Error write_failed where something bears the name that is not a bundle, or holds more than one: writing would delete it."""
    target = Path(folder)
    if not os.path.lexists(target):
        return
    fix = "choose another folder with --out, or move it away"
    try:
        known = {"manifest.json", *json.loads((target / "manifest.json").read_bytes())["files"]}
        foreign = sorted({entry.name for entry in target.iterdir()} - known)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise Error(Code.write_failed, "what is there is not a bundle and is not replaced", str(target), fix) from None
    if foreign:
        raise Error(
            Code.write_failed, f"the bundle there holds a file that is not its own: {foreign[0]}", str(target), fix
        )


def _replace(target: Path, made: Path, old: Path) -> None:
    if not target.exists():
        made.rename(target)
        return
    target.rename(old)
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise


def _canonical_json(value: Any) -> bytes:
    try:
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False, default=_plain)
    except (ValueError, TypeError) as error:
        fix = "metrics and provenance take finite numbers, text, lists and objects"
        raise Error(
            Code.bundle_bad_value, f"the manifest cannot be written as JSON: {error}", "manifest.json", fix
        ) from error
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _write_file(folder: Path, name: str, data: bytes) -> None:
    if Path(name).name != name:
        raise Error(
            Code.bundle_bad_path, f'"{name}" is not a plain file name', str(folder), "a bundle is one flat folder"
        )
    write_synced(folder / name, data)
