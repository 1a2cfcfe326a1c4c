"""Signs bundles: key pairs and detached signatures in the text files of minisign, with the package cryptography.

The core verifies them (cpp/src/trust.cpp). `minisign -S -s KEY -m NAME.imkd/manifest.json` signs a bundle as well, and
`minisign -V -p KEY.pub -m NAME.imkd/manifest.json` verifies what `sign_bundle` wrote.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imkd_edge.bundle.files import write_atomically
from imkd_edge.bundle.format import MANIFEST, SIGNATURE, Bundle, canonical_json, write_files
from imkd_edge.errors import Code, Error

# A secret key without a password: algorithm of the signature, of the password, of the checksum; then salt and two costs
# of the password, all 0.
_HEAD = b"Ed" + bytes(2) + b"B2" + bytes(32 + 8 + 8)
_SIZE = len(_HEAD) + 8 + 64 + 32  # key id, seed and public key, checksum
_AGAIN = "make a key pair with imkd-edge keygen NAME"
MAX_REVISION = 2**53 - 1


@dataclass(frozen=True)
class SecretKey:
    """A key that signs."""

    key_id: bytes  # 8 bytes
    seed: bytes  # 32 bytes, the private key of RFC 8032
    public: bytes  # 32 bytes

    @property
    def name(self) -> str:
        """The key's id as minisign prints it."""
        return self.key_id[::-1].hex().upper()

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of a message, 64 bytes."""
        return _ed25519().Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


def write_key_pair(path: str | os.PathLike[str]) -> dict[str, str]:
    """Makes a key pair: NAME.key, which signs and which only this user can read, and NAME.pub for trust folders.

    Args:
        path: NAME, with or without .key. No file is replaced.

    Returns:
        {"key_id", "secret": path, "public": path}.

    Raises:
        Error: write_failed where one of the files exists or cannot be written, missing_extra without cryptography.
    """
    secret = Path(path) if Path(path).suffix == ".key" else Path(f"{os.fspath(path)}.key")
    public = secret.with_suffix(".pub")
    for file in (secret, public):
        if os.path.lexists(file):
            raise Error(Code.write_failed, "the file exists, and no key is replaced", str(file), "choose another name")
    private = _ed25519().Ed25519PrivateKey.generate()
    key = SecretKey(secrets.token_bytes(8), private.private_bytes_raw(), private.public_key().public_bytes_raw())
    body = key.key_id + key.seed + key.public
    write_atomically(secret, _text("minisign secret key", _HEAD + body + _checksum(body)), private=True)
    comment = f"minisign public key {key.name}"
    write_atomically(public, _text(comment, b"Ed" + key.key_id + key.public))
    return {"key_id": key.name, "secret": str(secret), "public": str(public)}


def read_secret_key(path: str | os.PathLike[str]) -> SecretKey:
    """Reads NAME.key.

    Raises:
        Error: trust_bad_value for a file that is no secret key of minisign without a password, missing_extra.
    """
    where = os.fspath(path)
    try:
        data = base64.b64decode(Path(path).read_text(encoding="utf-8").splitlines()[1], validate=True)
    except (OSError, ValueError, IndexError) as error:
        raise Error(Code.trust_bad_value, f"no secret key can be read from it: {error}", where, _AGAIN) from error
    if len(data) == _SIZE and data[:2] == b"Ed" and data[2:4] == b"Sc":
        fix = f"minisign -S -s {where} -m NAME.imkd/{MANIFEST} asks for it, and signs the same way"
        raise Error(Code.trust_bad_value, "the secret key has a password", where, fix)
    body, checksum = data[len(_HEAD) : -32], data[-32:]
    # minisign itself leaves the checksum of a key without a password at 0.
    if len(data) != _SIZE or data[:6] != _HEAD[:6] or checksum not in (_checksum(body), bytes(32)):
        raise Error(Code.trust_bad_value, "is no secret key of minisign", where, _AGAIN)
    key = SecretKey(body[:8], body[8:40], body[40:])
    private = _ed25519().Ed25519PrivateKey.from_private_bytes(key.seed)
    if private.public_key().public_bytes_raw() != key.public:
        raise Error(Code.trust_bad_value, "its secret and its public half do not belong together", where, _AGAIN)
    return key


def sign_bundle(
    bundle: str | os.PathLike[str] | Bundle,
    key: SecretKey,
    out: str | os.PathLike[str] | None = None,
    revision: int | None = None,
) -> Bundle:
    """Writes a bundle with its signature; its networks stay as they are.

    Args:
        bundle: a Bundle, the path of one, or the name of a shipped one.
        key: from `read_secret_key`.
        out: folder to write, NAME.imkd; None: the bundle itself, whose old signature is replaced.
        revision: of the manifest; vehicles refuse one below their trust folder's least_revision. None: as before.

    Raises:
        Error: bundle_bad_value for a revision out of range, those of Bundle.load, write_failed.
    """
    bundle = Bundle.load(bundle)
    if revision is not None and not 0 <= revision <= MAX_REVISION:
        fix = f"give a whole number from 0 to {MAX_REVISION}"
        raise Error(Code.bundle_bad_value, f"{revision} is out of range", "--revision", fix)
    manifest: dict[str, Any] = json.loads(bundle.core.manifest.encode())
    if revision is not None:
        manifest["revision"] = revision
    text = canonical_json(manifest)
    files = {name: bundle.read(name) for name in manifest["files"]}
    comment = f"model {bundle.spec.name}, revision {manifest.get('revision', 0)}"
    files |= {MANIFEST: text, SIGNATURE: signature_of(text, key, comment)}
    return write_files(bundle.path if out is None else out, files)


def signature_of(data: bytes, key: SecretKey, comment: str) -> bytes:
    """The detached signature of a file, as minisign writes it.

    Args:
        data: the file's content.
        key: from `read_secret_key`.
        comment: signed as well; what cannot be printed in one line becomes a question mark.
    """
    comment = "".join(letter if letter.isprintable() else "?" for letter in comment)
    first = key.sign(hashlib.blake2b(data).digest())
    second = key.sign(first + comment.encode())
    lines = [
        "untrusted comment: signature from minisign secret key",
        base64.b64encode(b"ED" + key.key_id + first).decode(),
        f"trusted comment: {comment}",
        base64.b64encode(second).decode(),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        what = f"signing needs the package cryptography: {error}"
        raise Error(Code.missing_extra, what, "imkd_edge.bundle.sign", 'pip install "imkd-edge[sign]"') from error
    return ed25519


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(b"Ed" + body, digest_size=32).digest()


def _text(comment: str, data: bytes) -> bytes:
    return f"untrusted comment: {comment}\n{base64.b64encode(data).decode()}\n".encode()
