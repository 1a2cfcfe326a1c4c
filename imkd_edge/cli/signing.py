"""Signing bundles: the verb keygen, and the options with which export signs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imkd_edge.cli.common import OK, Json, examples, filled, log, print_json, refuse, verb

SignKey = Annotated[
    Path | None,
    typer.Option("--sign", metavar="KEY", help="Sign the bundle with NAME.key of imkd-edge keygen (extra sign)."),
]
Revision = Annotated[
    int | None,
    typer.Option(min=0, help="With --sign: number in the manifest, which vehicles can require to rise."),
]
Trust = Annotated[
    str | None,
    typer.Option(
        metavar="[POLICY:]FOLDER",
        help="Folder of trusted public keys; POLICY is warn (the default) or require, which refuses unsigned bundles.",
        callback=filled,
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the verb to the application."""
    app.command(
        "keygen",
        epilog=examples("imkd-edge keygen keys/fleet", "imkd-edge keygen keys/fleet.key --json"),
    )(keygen)


@verb
def keygen(
    name: Annotated[Path, typer.Argument(help="NAME.key, which signs, and NAME.pub are written; none is replaced.")],
    json: Json = False,
) -> int:
    """Make a key pair for signing bundles: keep NAME.key secret, copy NAME.pub into the vehicles' trust folder."""
    from imkd_edge.bundle.sign import write_key_pair

    pair = write_key_pair(name)
    if json:
        print_json(pair)
        return OK
    log().print(f"{pair['secret']}: secret, only this user can read it; whoever has it can sign")
    log().print(f"{pair['public']}: key {pair['key_id']}, for the vehicles' trust folder")
    log().print(f"next: imkd-edge export BUNDLE --sign {pair['secret']} --revision 1 --out NAME.imkd")
    return OK


def secret_key(path: Path | None, revision: int | None) -> Any:
    """The key of --sign, read before a long export; None without the option."""
    if path is None:
        refuse({"--revision": revision}, "belongs to a signature", "add --sign KEY")
        return None
    from imkd_edge.bundle.sign import read_secret_key

    return read_secret_key(path)


def sign_bundle(bundle: str | Path, key: Any, revision: int | None, out: Path) -> dict[str, Any]:
    """Signs a bundle into `out`, which may be the bundle itself; what a verb prints of it."""
    from imkd_edge.bundle import sign

    signed = sign.sign_bundle(bundle, key, out, revision)
    return {
        "bundle": str(out),
        "bytes": sum(file.stat().st_size for file in signed.path.iterdir()),
        "revision": signed.revision,
        "signature": f"key {key.name}",
    }
