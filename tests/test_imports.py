"""Imports point one way and have no cycle, and `import imkd_edge` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORKSTATION = ("training", "quantization", "calibration")  # folders beside imkd_edge/, subpackages of imkd_edge
HEAVY = {"torch", "torchvision", "timm", "onnx", "onnxscript", "safetensors", "modelopt", "torch_tensorrt"}
LATE = {
    "cv2",
    "onnxruntime",
    "cryptography",
    "rosbags",
    "mcap",
    "av",
    "foxglove",
    "google.protobuf",
    *HEAVY,
}  # never at `import imkd_edge`

# Package -> what its modules must not import, however deep inside a function.
FORBIDDEN = {
    "imkd_edge": {*(f"imkd_edge.{part}" for part in WORKSTATION), "tests", "helpers"},
    "imkd_edge.training": {"imkd_edge.quantization", "imkd_edge.calibration", "tests", "helpers"},
    "imkd_edge.calibration": {"imkd_edge.quantization", "tests", "helpers"},
    "imkd_edge.quantization": {"tests", "helpers"},
}
# Rooms of the device side, the lowest first: each imports from itself and from those before it.
ROOMS = [
    ["_core"],
    ["errors", "frames"],
    ["spec", "rig", "result", "ops"],
    ["live", "options", "progress", "tracking"],
    ["bundle"],
    ["engines"],
    ["detector"],
    ["sources"],
    ["view"],
    ["run"],
    ["predict"],
    ["checks"],
    ["bench"],
    ["evaluation"],
    ["cli"],
]
# Shortcuts for users, inside methods: the lower module calls the higher one, and works without it.
SHORTCUTS = {
    ("imkd_edge.result", "imkd_edge.view.draw"),
    ("imkd_edge.result", "imkd_edge.view.save"),
    ("imkd_edge.detector", "imkd_edge.sources.open"),
}
# Modules of the device side that need an extra's packages: nothing imports them unless it is asked to.
WITH_EXTRAS = {
    "imkd_edge.engines.float16": {"onnx"},
    "imkd_edge.engines.torch": {"torch", "onnx", "torch_tensorrt"},
    "imkd_edge.engines.torch_graph": {"torch", "onnx"},
    "imkd_edge.checks.cameras": {"onnx"},
    "imkd_edge.checks.engines": {"torch"},  # asks it for its GPU, where it is installed
    "imkd_edge.evaluation.compare": {"onnx"},
    "imkd_edge.bundle.cameras": {"onnx"},
    "imkd_edge.bundle.half": {"onnx"},
    "imkd_edge.bundle.shapes": {"onnx"},
    "imkd_edge.predict.layers": {"onnx"},
    "imkd_edge.predict.cost": {"onnx"},
    "imkd_edge.bench.references": {"torch", "torchvision"},  # among the references, where they are installed
}


@dataclass(frozen=True)
class Import:
    """One name that an import statement binds."""

    module: str  # absolute
    line: int
    at_load: bool  # not inside a function
    typing: bool  # under `if TYPE_CHECKING`


def imports(path: Path, package: str) -> list[Import]:
    """Every import statement of a file, relative ones resolved against its package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def inside(kind: type | tuple[type, ...], test=lambda node: True) -> set[int]:
        outer = [node for node in ast.walk(tree) if isinstance(node, kind) and test(node)]
        return {id(node) for block in outer for node in ast.walk(block)}

    functions = inside((ast.FunctionDef, ast.Lambda))
    typing = inside(ast.If, lambda node: "TYPE_CHECKING" in ast.dump(node.test))
    result = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        result += [Import(name, node.lineno, id(node) not in functions, id(node) in typing) for name in names]
    return result


def modules() -> Iterator[tuple[str, Path]]:
    """(absolute name, file) of every module that the wheel holds."""
    for folder, package in [("imkd_edge", "imkd_edge"), *((part, f"imkd_edge.{part}") for part in WORKSTATION)]:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


MODULES = dict(modules())
PACKAGES = {name: name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in MODULES.items()}
IMPORTS = {name: imports(path, PACKAGES[name]) for name, path in MODULES.items()}


def part_of(module: str) -> str:
    """The package of FORBIDDEN that a module belongs to."""
    return max((package for package in FORBIDDEN if within(module, package)), key=len)


def room_of(module: str) -> int | None:
    """Index in ROOMS; None for the package root and for the workstation side."""
    name = module.split(".")[1] if "." in module else ""
    return next((i for i, rooms in enumerate(ROOMS) if name in rooms), None)


def is_shortcut(module: str, item: Import) -> bool:
    return not item.at_load and any(
        module == m and (within(n, item.module) or within(item.module, n)) for m, n in SHORTCUTS
    )


def listed(module: str, item: Import) -> str:
    return f"{MODULES[module].relative_to(ROOT)}:{item.line} imports {item.module}"


def test_imports_point_one_way() -> None:
    wrong = [
        listed(module, item)
        for module, items in IMPORTS.items()
        for item in items
        if any(within(item.module, package) for package in FORBIDDEN[part_of(module)])
    ]
    assert not wrong


def test_rooms_import_only_from_lower_rooms() -> None:
    wrong = [
        listed(module, item)
        for module, items in IMPORTS.items()
        for item in items
        if not item.typing
        and not is_shortcut(module, item)
        and (room := room_of(module)) is not None
        and (other := room_of(item.module)) is not None
        if other > room or (other == room and item.module.split(".")[1] != module.split(".")[1])
    ]
    assert not wrong


def test_every_room_is_listed() -> None:
    names = {module.split(".")[1] for module in MODULES if module.count(".") >= 1}
    assert names == {name for rooms in ROOMS for name in rooms if name != "_core"} | set(WORKSTATION)


def test_the_device_side_needs_no_heavy_package() -> None:
    wrong = [
        listed(module, item)
        for module, items in IMPORTS.items()
        if part_of(module) == "imkd_edge"
        for item in items
        if item.module.split(".")[0] in HEAVY - WITH_EXTRAS.get(module, set())
    ]
    assert not wrong


def test_no_module_that_needs_an_extra_is_loaded_with_another() -> None:
    wrong = [
        listed(module, item)
        for module, items in IMPORTS.items()
        if part_of(module) == "imkd_edge" and module not in WITH_EXTRAS
        for item in items
        if item.at_load
        and not item.typing
        and item.module in WITH_EXTRAS
        and item.module != "imkd_edge.bench.references"
        and not within(module, "imkd_edge.predict")
    ]
    assert not wrong


def test_nothing_internal_imports_from_the_package_root() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module == "imkd_edge" and not node.level)
        or (isinstance(node, ast.Import) and any(alias.name == "imkd_edge" for alias in node.names))
    ]
    assert not wrong


def test_no_package_is_imported_by_its_folder_beside_imkd_edge() -> None:
    files = [*MODULES.values(), *sorted((ROOT / "tests").rglob("*.py"))]
    wrong = [
        f"{path.relative_to(ROOT)}:{item.line} imports {item.module}"
        for path in files
        for item in imports(path, "")
        if any(within(item.module, folder) for folder in WORKSTATION)
    ]
    assert not wrong


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module, and modules that import themselves."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    result = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1 or node in graph[node]:
                result.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return result


def test_the_import_graph_has_no_cycle() -> None:
    """Imports inside functions count; a module's own package does not."""
    graph = {
        module: {
            item.module
            for item in items
            if not item.typing and item.module in MODULES and item.module != PACKAGES[module]
            if not is_shortcut(module, item)
        }
        for module, items in IMPORTS.items()
    }
    assert not cycles(graph)


def test_the_cycle_finder_finds_a_cycle() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_check_sees_an_import_inside_a_function(tmp_path: Path) -> None:
    module = tmp_path / "m.py"
    module.write_text("def f():\n    import torch.nn\n    from imkd_edge.training import program\n")
    items = imports(module, "imkd_edge")
    assert {"torch.nn", "imkd_edge.training.program"} <= {item.module for item in items}
    assert not any(item.at_load for item in items)


@pytest.mark.parametrize(
    "module", ["imkd_edge", "imkd_edge.detector", "imkd_edge.ops", "imkd_edge.sources", "imkd_edge.cli"]
)
def test_import_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    script = f"import sys, {module}; print(' '.join(sorted({LATE!r} & set(sys.modules))))"
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_no_file_of_the_tree_is_a_symbolic_link() -> None:
    """A source zip loses links."""
    tracked = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout: links are NOT looked for")
    assert not [line for line in tracked.stdout.splitlines() if line.startswith("120000")]
