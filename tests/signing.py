"""Keys, trust folders and signatures in the format of minisign, made here with the package cryptography alone."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

NO_CRYPTOGRAPHY = "CRYPTOGRAPHY ABSENT: pip install cryptography"
pytest.importorskip("cryptography", reason=NO_CRYPTOGRAPHY)

from cryptography.exceptions import InvalidSignature  # noqa: E402, F401
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey  # noqa: E402

ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group of Ed25519 (RFC 8032, 5.1)
UNTRUSTED = "untrusted comment: signature from minisign secret key"
SIGNATURE = "manifest.json.minisig"


@dataclass(frozen=True)
class Key:
    """A key made of one byte, for tests."""

    seed: int
    key_id: bytes

    @property
    def private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(bytes([self.seed]) * 32)

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def name(self) -> str:
        """minisign prints the id as a little-endian number."""
        return f"{int.from_bytes(self.key_id, 'little'):016X}"

    def public_file(self) -> str:
        return f"untrusted comment: for tests\n{encode(b'Ed' + self.key_id + self.public)}\n"


FLEET, OTHER, STRANGER = (Key(seed, bytes([seed, *range(7)])) for seed in (1, 2, 3))


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def lines_of(file: bytes, key: Key, comment: str = "for tests", prehashed: bool = True) -> list[str]:
    """The four lines of a signature."""
    first = key.private.sign(hashlib.blake2b(file).digest() if prehashed else file)
    second = key.private.sign(first + comment.encode())
    algorithm = b"ED" if prehashed else b"Ed"
    return [UNTRUSTED, encode(algorithm + key.key_id + first), f"trusted comment: {comment}", encode(second)]


def join(lines: list[str], end: str = "\n") -> bytes:
    return "".join(line + end for line in lines).encode()


def sign(folder: Path, key: Key, comment: str = "for tests", prehashed: bool = True) -> Path:
    """Signs a bundle's folder."""
    text = join(lines_of((folder / "manifest.json").read_bytes(), key, comment, prehashed))
    (folder / SIGNATURE).write_bytes(text)
    return folder


def trust_folder(folder: Path, *keys: Key, names: tuple[str, ...] = ("fleet", "other", "more")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for key, name in zip(keys, names, strict=False):
        (folder / f"{name}.pub").write_text(key.public_file())
    return folder


def verify_by_hand(manifest: bytes, signature: bytes, public_file: str) -> str:
    """The trusted comment; raises InvalidSignature. Written after minisign's description, apart from our code."""
    algorithm_id_key = base64.b64decode(public_file.splitlines()[1], validate=True)
    key_id, public = algorithm_id_key[2:10], Ed25519PublicKey.from_public_bytes(algorithm_id_key[10:])
    untrusted, first, trusted, second = signature.decode().splitlines()
    assert untrusted.startswith("untrusted comment: ") and trusted.startswith("trusted comment: ")
    data, comment = base64.b64decode(first, validate=True), trusted.removeprefix("trusted comment: ")
    assert data[:2] == b"ED" and data[2:10] == key_id and len(data) == 74
    public.verify(data[10:], hashlib.blake2b(manifest).digest())
    public.verify(base64.b64decode(second, validate=True), data[10:] + comment.encode())
    return comment
