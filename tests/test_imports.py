"""Imports point one way, and `import imkd_edge` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEVICE, TRAINING, QUANTIZATION = "imkd_edge", "imkd_edge.training", "imkd_edge.quantization"
CALIBRATION = "imkd_edge.calibration"
HEAVY = {"torch", "torchvision", "timm", "onnx", "onnxscript", "safetensors", "modelopt"}
LATE = {"cv2", "onnxruntime", *HEAVY}  # never at `import imkd_edge`

# Package folder -> what its modules must not import, however deep inside a function.
FORBIDDEN = {
    "training": [QUANTIZATION, CALIBRATION, "tests", "helpers"],
    "quantization": ["tests", "helpers"],
    "calibration": [QUANTIZATION, "tests", "helpers"],
    "imkd_edge": ["tests", "helpers", *sorted(HEAVY)],
}
# The workstation verbs name these parts in a string, and import them when they run.
BARE_NAMES = ("training", "quantization", "calibration")


def modules(folder: str) -> list[Path]:
    linked = {ROOT / "imkd_edge" / name for name in BARE_NAMES}
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if not linked & set(path.parents)]


def imported(path: Path, package: str) -> list[tuple[str, int, bool]]:
    """(module, line, at import time) of every import statement, relative ones resolved."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.Lambda))
        for node in ast.walk(outer)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        found += [(name, node.lineno, id(node) not in inside) for name in names]
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("folder", sorted(FORBIDDEN))
def test_imports_point_one_way(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(folder)
        for name, line, _ in imported(path, "imkd_edge" if folder == "imkd_edge" else f"imkd_edge.{folder}")
        for package in FORBIDDEN[folder]
        if within(name, package) and not _optional_reference(path, name)
    ]
    assert not wrong


def _optional_reference(path: Path, name: str) -> bool:
    """The benchmark times torch and torchvision, where they are there, among the references."""
    return path == ROOT / "imkd_edge" / "bench" / "references.py" and name.split(".")[0] in ("torch", "torchvision")


def test_the_device_side_names_no_workstation_part_at_import_time() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules("imkd_edge")
        for name, line, _ in imported(path, "imkd_edge")
        if any(within(name, package) for package in (TRAINING, QUANTIZATION, CALIBRATION))
    ]
    assert not wrong


def test_nobody_imports_the_linked_folders_by_their_bare_name() -> None:
    folders = ["imkd_edge", *BARE_NAMES, "tests"]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for folder in folders
        for path in modules(folder)
        for name, line, _ in imported(path, "imkd_edge")
        if any(within(name, bare) for bare in BARE_NAMES)
    ]
    assert not wrong


@pytest.mark.parametrize("folder", BARE_NAMES)
def test_the_workstation_folders_are_links(folder: str) -> None:
    link = ROOT / "imkd_edge" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder


def test_the_check_sees_an_import_inside_a_function(tmp_path: Path) -> None:
    """The check itself must be able to fail."""
    module = tmp_path / "m.py"
    module.write_text("def f():\n    import torch.nn\n    from imkd_edge.training import main\n")
    names = [name for name, _, _ in imported(module, "imkd_edge")]
    assert "torch.nn" in names and "imkd_edge.training.main" in names


@pytest.mark.parametrize(
    "module", ["imkd_edge", "imkd_edge.detector", "imkd_edge.ops", "imkd_edge.sources", "imkd_edge.cli"]
)
def test_import_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    script = f"import sys, {module}; print(' '.join(sorted({LATE!r} & set(sys.modules))))"
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
