"""The wheel from a source zip, which has neither .git nor symbolic links, holds every part and runs its verbs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from helpers import write_toy_config

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("imkd_edge", "training", "quantization", "calibration", "cpp", "cmake")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def source_zip(folder: Path) -> Path:
    """What a download of the repository holds: regular files alone."""
    target = folder / "source.zip"
    single = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE")
    files = [ROOT / name for name in single] + [p for name in FOLDERS for p in sorted((ROOT / name).rglob("*"))]
    with zipfile.ZipFile(target, "w") as archive:
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so":
                archive.write(path, path.relative_to(ROOT))
    return target


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment in which the wheel is installed, and beside it what this one has."""
    pytest.importorskip("scikit_build_core", reason="no scikit-build-core: the wheel of a source zip is NOT built")
    folder = ROOT / "build" / "source-zip"  # in the tree, so that the compiler's cache knows the files
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(source_zip(folder)) as archive:
        archive.extractall(folder / "source")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder / "source", cwd=folder)
    (wheel,) = folder.glob("imkd_edge-*.whl")

    venv.create(folder / "env", with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
    run(*pip, "install", "--no-deps", "--target", site, wheel, cwd=folder)
    # A .pth file of an entry in sys.path is not read, so the editable installation of this environment is not seen.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "python"


def test_doctor_finds_every_part(python: Path, tmp_path: Path) -> None:
    report = json.loads(run(python, "-m", "imkd_edge.cli", "doctor", "--json", cwd=tmp_path))
    checks = {check["name"]: check for check in report["checks"]}
    assert checks["parts"]["status"] == "ok"
    module = run(python, "-c", "import imkd_edge.training.program as m; print(m.__file__)", cwd=tmp_path)
    assert Path(module.strip()).is_relative_to(python.parents[1])  # of the wheel, not of this tree


def test_train_and_quantize_run(python: Path, tmp_path: Path) -> None:
    synth = ("--data", "synth", "--option", "scenes=2", "--option", "frames_per_scene=9", "--threads", "1")
    quantize = ("quantize", "tiny", *synth, "--frames", "16", "--out", tmp_path / "q.imkd", "--json")
    assert json.loads(run(python, "-m", "imkd_edge.cli", *quantize, cwd=tmp_path))["bits"] == 8
    config = write_toy_config(tmp_path / "toy.toml")
    train = ("train", config, "--epochs", "1", "--out", tmp_path / "run", "--json")
    result = json.loads(run(python, "-m", "imkd_edge.cli", *train, cwd=tmp_path))
    assert Path(result["checkpoint"]).is_file()


def test_doctor_says_what_an_incomplete_installation_lacks(python: Path, tmp_path: Path) -> None:
    site = next((python.parents[1] / "lib").glob("python3*")) / "site-packages"
    copy = tmp_path / "site"
    shutil.copytree(site / "imkd_edge", copy / "imkd_edge")
    shutil.rmtree(copy / "imkd_edge" / "training")
    script = f"import sys; sys.path.insert(0, {str(copy)!r}); from imkd_edge.cli import main; main()"
    done = subprocess.run(
        [python, "-c", script, "train", "tiny"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 3 and "this installation lacks imkd_edge.training" in done.stderr
    done = subprocess.run(
        [python, "-c", script, "doctor", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    parts = next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "parts")
    assert done.returncode == 3 and parts["status"] == "fail" and "imkd_edge.training" in parts["detail"]
