"""The command line `imkd-edge`."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from importlib import metadata
from typing import Annotated

import typer

from imkd_edge.cli import data, device, export, live, signing, workstation
from imkd_edge.cli.common import BUG, ENVIRONMENT, INTERRUPTED, adapt_streams, examples

app = typer.Typer(
    name="imkd-edge",
    help="3D object detection from cameras and radars.",
    epilog=examples("imkd-edge demo", "imkd-edge infer synth --bundle tiny --json"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"imkd-edge {metadata.version('imkd-edge')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, metavar="", help="Print the version.")
    ] = False,
) -> None:
    pass


device.register(app)
live.register(app)
data.register(app)
workstation.register(app)
export.register(app)
signing.register(app)


def main() -> None:
    """Entry point of the console script; SIGTERM, by which services are stopped, ends a verb as Ctrl-C does."""
    adapt_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except OSError as error:  # of standard output: verbs report those of files
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"standard output cannot be written: {error.strerror}\n")
        sys.exit(ENVIRONMENT)
    except Exception:
        traceback.print_exc()
        sys.exit(BUG)  # Python's 1 is the code of a failed gate
