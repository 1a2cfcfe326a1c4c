"""The verb export: a bundle of a checkpoint, or of another bundle, signed where a key is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imkd_edge.cli import report
from imkd_edge.cli.common import OK, Json, examples, import_extra, refuse, verb
from imkd_edge.cli.signing import Revision, SignKey, secret_key, sign_bundle
from imkd_edge.errors import Code, Error
from imkd_edge.options import BEST, CHECKPOINT


def register(app: typer.Typer) -> None:
    """Adds the verb to the application."""
    app.command(
        "export",
        epilog=examples(
            "imkd-edge export runs/astyx-lite --out runs/astyx-lite.imkd --metrics runs/astyx-lite/eval.json",
            "imkd-edge export tiny --cameras 8 --sign keys/fleet.key --revision 2 --out runs/tiny-8.imkd",
        ),
    )(export)


@verb
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A run's folder or its checkpoint.pt; with --cameras, --golden or --sign also a bundle or its name."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write, NAME.imkd.")],
    data: Annotated[
        str | None,
        typer.Option(help="Source of the golden drive's rig and of the contract; the default is the training's."),
    ] = None,
    metrics: Annotated[Path | None, typer.Option(help="Output of imkd-edge eval --json, for the model card.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights in 16 bits, for half the size.")] = False,
    cameras: Annotated[
        int | None, typer.Option(help="Largest number of cameras of a rig; the default is the training's.")
    ] = None,
    golden: Annotated[
        str | None,
        typer.Option(
            help="Remake the golden drive, which the self-test runs: synth, a rig.json, or a recording (its frames "
            "go into the bundle)."
        ),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Take best.pt of a run's folder, which the validation split chose.")
    ] = False,
    sign: SignKey = None,
    revision: Revision = None,
    json: Json = False,
) -> int:
    """Turn a checkpoint into a bundle for the device, or a bundle into one of more cameras or another golden drive.

    With --sign the bundle is signed; without --cameras and --golden a bundle is only copied and signed, also in its
    place (--out BUNDLE). Whatever else changes a bundle removes its signature.
    """
    checkpoint, key = checkpoint_of(checkpoint, best), secret_key(sign, revision)
    if not (cameras is None and golden is None and key is None) and not checkpoint.is_file():
        refuse({"--data": data, "--metrics": metrics, "--half": half}, "belongs to a checkpoint", "leave it out")
        source: str | Path = str(checkpoint)
        if not (cameras is None and golden is None):
            module = import_extra("imkd_edge.checks.cameras", "quantize")
            result, source = module.export_with_cameras(source, cameras, out, golden), out
        report.show_result("bundle", result if key is None else sign_bundle(source, key, revision, out), json)
        return OK
    if not checkpoint.is_file():
        fix = "give the folder or checkpoint.pt that train wrote, or a bundle and --cameras, --golden or --sign"
        if best:
            fix = "train with [train] val_split, or leave --best out for the last epoch"
        raise Error(Code.train_checkpoint, "no such checkpoint", str(checkpoint), fix)
    module = import_extra("imkd_edge.training.export", "train")
    result = module.export(
        checkpoint, out, data=data, metrics=metrics, half=half, cameras=cameras, golden=golden or "synth"
    )
    report.show_result("bundle", result if key is None else {**result, **sign_bundle(out, key, revision, out)}, json)
    return OK


def checkpoint_of(path: Path, best: bool) -> Path:
    """The checkpoint of a run's folder, the best one where asked for; another path as it is."""
    if (path / CHECKPOINT).is_file():
        return path / (BEST if best else CHECKPOINT)
    if best:
        fix = "name the folder that imkd-edge train wrote"
        raise Error(Code.train_checkpoint, "--best chooses a file of a run's folder", str(path), fix)
    return path
