"""The installed library in a separate project, on a real frame; the symbols that it exports and must not use."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from imkd_edge import Bundle, Detector
from imkd_edge.engines import engine_names, onnxruntime_library

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("IMKD_BUILD", ROOT / "build" / "tests"))
NATIVE = pytest.mark.skipif(
    "onnxruntime-native" not in engine_names(), reason="no native engine: embedding is NOT tested"
)


def run(*command: object, **options) -> subprocess.CompletedProcess:
    process = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert process.returncode == 0, process.stdout + process.stderr
    return process


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in cpp/examples/embed, built against an installed tree only."""
    if not (BUILD / "libimkd.a").is_file() or not shutil.which("cmake"):
        pytest.skip("the C++ library was not built: embedding is NOT tested")
    folder = tmp_path_factory.mktemp("embed")
    run("cmake", "--install", BUILD, "--prefix", folder / "prefix", "--component", "cpp")
    shutil.copytree(ROOT / "cpp" / "examples" / "embed", folder / "source")
    run("cmake", "-S", folder / "source", "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={folder / 'prefix'}")
    run("cmake", "--build", folder / "build")
    return folder / "build" / "embed"


def boxes(program: Path, bundle: Bundle, sample, folder: Path, absent: str = "") -> list[list[str]]:
    for name, image in sample.frames.items():
        pixels = np.ascontiguousarray(image).tobytes() if name != absent else b"a truncated image"
        (folder / f"{name}.rgb").write_bytes(pixels)
    for sweep in sample.radar:
        (folder / f"{sweep.radar}.bin").write_bytes(np.ascontiguousarray(sweep.points).tobytes())
    (folder / "rig.json").write_text(sample.rig.to_json())
    environment = {**os.environ, "IMKD_ORT_LIBRARY": str(onnxruntime_library())}
    process = run(program, bundle.path, folder / "rig.json", folder, env=environment)
    assert process.stderr == ""
    return [line.split() for line in process.stdout.splitlines()]


def check(printed: list[list[str]], bundle: Bundle, sample, frames) -> None:
    with Detector(bundle, sample.rig, engine="onnxruntime-native") as detector:
        result = detector.infer(frames, {sweep.radar: sweep.points for sweep in sample.radar})
    assert len(printed) == len(result.boxes) > 0
    for words, d in zip(printed, result.detections, strict=True):
        assert words[0] == d.label
        assert [float(word) for word in words[1:]] == pytest.approx([d.score, *d.center, d.yaw], rel=1e-5, abs=1e-5)


@NATIVE
def test_a_real_frame_gives_the_boxes_of_python(embed: Path, shared_data: Path, tmp_path: Path) -> None:
    from imkd_edge.sources.astyx import AstyxSource

    bundle, sample = Bundle.load("astyx-lite"), AstyxSource(shared_data / "astyx")["000283"]
    check(boxes(embed, bundle, sample, tmp_path), bundle, sample, sample.frames)


@NATIVE
@pytest.mark.parametrize("absent", ["", "BEHIND"])
def test_a_synthetic_frame_gives_the_boxes_of_python_with_and_without_a_camera(
    embed: Path, bundle: Bundle, scene, tmp_path: Path, absent: str
) -> None:
    frames = {name: image for name, image in scene.frames.items() if name != absent}
    check(boxes(embed, bundle, scene, tmp_path, absent), bundle, scene, frames)


def test_the_example_is_one_short_file() -> None:
    sources = [path for path in (ROOT / "cpp" / "examples" / "embed").iterdir() if path.name != "CMakeLists.txt"]
    assert [path.name for path in sources] == ["embed.cpp"] and len(sources[0].read_text().splitlines()) <= 60


# ---- exported and undefined symbols ----
def symbols(library: Path, *options: str) -> set[str]:
    if not library.is_file():
        pytest.skip("the C++ library was not built: its symbols are NOT tested")
    lines = subprocess.run(
        ["nm", *options, str(library)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return {line.split()[-1].split("@")[0] for line in lines if line.strip() and not line.endswith(":")}


def test_the_c_library_exports_exactly_what_its_header_declares() -> None:
    header = (ROOT / "cpp" / "include" / "imkd" / "imkd.h").read_text()
    declared = re.findall(r"^IMKD_API .*?\b(imkd_\w+)\(", header, re.MULTILINE)
    assert symbols(BUILD / "libimkd.so", "-D", "--defined-only") == set(declared)
    # detector 9, synchronizer 10, monitor 8, watchdog 7, tracker 6; 2 without a handle
    assert len(declared) == 42


def is_standard_stream(symbol: str) -> bool:
    """std::cin, cout, cerr, clog, their wide variants, and the initialiser that <iostream> adds to a program."""
    pattern = r"_ZSt3cin|_ZSt4(cout|cerr|clog|wcin)|_ZSt5(wcout|wcerr|wclog)|_ZNSt8ios_base4Init[CD]\dEv"
    return re.fullmatch(pattern, symbol) is not None


# Symbols that end the process or print.
FORBIDDEN = {
    *("exit", "_exit", "_Exit", "quick_exit", "abort", "__assert_fail", "raise", "kill", "fork", "system"),
    *("signal", "sigaction", "printf", "puts", "putchar", "fprintf", "fputs", "perror", "stdout", "stderr"),
    *("__printf_chk", "__fprintf_chk"),
}


@pytest.mark.parametrize("library", ["libimkd.a", "libimkd.so"])
def test_the_library_neither_prints_nor_ends_the_program(library: str) -> None:
    options = ["-D", "-u"] if library.endswith(".so") else ["-u"]
    undefined = symbols(BUILD / library, *options)
    if library.endswith(".so") and "cudaMalloc" in symbols(BUILD / library):
        pytest.skip("it contains NVIDIA's static runtime, which may call them; libimkd.a is tested")
    assert "dlopen" in undefined  # the list of symbols was read
    assert not undefined & FORBIDDEN and not any(map(is_standard_stream, undefined))


def test_the_check_detects_an_exit_and_a_cout(tmp_path: Path) -> None:
    """Shows that the check can fail."""
    program = "#include <cstdlib>\n#include <iostream>\nvoid f() { std::cout << 1; std::exit(1); }\n"
    (tmp_path / "bad.cpp").write_text(program)
    run("c++", "-c", "bad.cpp", cwd=tmp_path)
    undefined = symbols(tmp_path / "bad.o", "-u")
    assert undefined & FORBIDDEN == {"exit"} and any(map(is_standard_stream, undefined))
