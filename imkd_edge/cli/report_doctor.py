"""The doctor's findings, as a table for people."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from imkd_edge.cli.common import out
from imkd_edge.cli.report import make_table

_STATUS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[bold red]fail[/]"}


def show_checks(report: dict[str, Any]) -> None:
    """The doctor's findings, each with its fix where it has one; what is absent and optional has a dash."""
    table = make_table("", "status", "check", "finding")
    for check in report["checks"]:
        optional = check["status"] == "ok" and check["fix"]
        remedy = f"\n[bold]{'to have it' if optional else 'fix'}:[/] {escape(check['fix'])}" if check["fix"] else ""
        status = "[dim]–[/]" if optional else _STATUS[check["status"]]
        table.add_row(status, check["name"], escape(check["detail"]) + remedy)
    out().print(table)
    out().print("[dim]–[/]: optional, and not there")
    out().print(f"overall: {_STATUS[report['status']]}")
