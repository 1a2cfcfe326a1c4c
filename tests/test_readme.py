"""The commands of README, rig guide and live guide work: blocks marked <!-- test --> are run verbatim."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import NO_BUNDLE

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/guide/rig.md", "docs/guide/live.md")
BLOCK = re.compile(r"<!-- test(?P<note>[^>]*?)-->\n```(?P<language>\w+)\n(?P<text>.*?)```", re.S)


@dataclass(frozen=True)
class Block:
    """One marked block of a page."""

    note: str
    language: str
    text: str


def blocks() -> list[Block]:
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    return [Block(match["note"].strip(": "), match["language"], match["text"]) for match in BLOCK.finditer(text)]


def commands() -> list[str]:
    lines = [line for block in blocks() if block.language == "bash" for line in block.text.splitlines()]
    return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new folder with the guide's rig and a random bundle for it."""
    from helpers import random_spec, write_random_bundle

    path = tmp_path_factory.mktemp("readme")
    rig = next(block for block in blocks() if block.language == "json" and block.note == "rig.json")
    (path / "rig.json").write_text(rig.text)
    write_random_bundle(path / "my-model.imkd", random_spec(cameras=1))
    return path


def execute(command: list[str], folder: Path) -> str:
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": paths}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def needs_tiny(text: str) -> None:
    from imkd_edge.bundle import shipped

    if re.search(r"\btiny\b|imkd-edge (demo|doctor)", text) and "tiny" not in shipped():
        pytest.skip(f"{NO_BUNDLE}: tiny is not shipped with this tree")


def test_the_readme_has_blocks_to_run() -> None:
    assert len(commands()) >= 6
    assert sum(block.language == "python" for block in blocks()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_command(command: str, folder: Path) -> None:
    needs_tiny(command)
    assert execute(["bash", "-c", command], folder)


@pytest.mark.parametrize("number", range(4))
def test_python(number: int, folder: Path) -> None:
    block = [block for block in blocks() if block.language == "python"][number]
    needs_tiny(block.text)
    assert execute([sys.executable, "-c", block.text], folder)


def test_every_verb_that_a_page_names_exists() -> None:
    import typer.main

    from imkd_edge.cli import app

    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"^imkd-edge ([\w-]+)", text, re.M)) | set(re.findall(r"`imkd-edge ([a-z-]+)[ `]", text))
    assert named and named <= known


def test_the_picture_is_there_and_small() -> None:
    picture = ROOT / "docs" / "overview.png"
    if not picture.exists():
        pytest.skip(f"{NO_BUNDLE}: the picture is drawn with tiny")
    assert 20_000 < picture.stat().st_size < 300_000
