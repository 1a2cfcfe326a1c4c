"""The installed library in a stranger's project, built from scratch, on a real frame; what the library shows, and what it never calls."""

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
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def embed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in cpp/examples/embed, built against an installed tree and nothing else."""
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
        (folder / f"{name}.rgb").write_bytes(
            np.ascontiguousarray(image).tobytes() if name != absent else b"half an image"
        )
    for sweep in sample.radar:
        (folder / f"{sweep.radar}.bin").write_bytes(np.ascontiguousarray(sweep.points).tobytes())
    (folder / "rig.json").write_text(sample.rig.to_json())
    environment = {**os.environ, "IMKD_ORT_LIBRARY": str(onnxruntime_library())}
    done = run(program, bundle.path, folder / "rig.json", folder, env=environment)
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


def check(found: list[list[str]], bundle: Bundle, sample, frames) -> None:
    with Detector(bundle, sample.rig, engine="onnxruntime-native") as detector:
        result = detector.infer(frames, {sweep.radar: sweep.points for sweep in sample.radar})
    assert len(found) == len(result.boxes) > 0
    for words, d in zip(found, result.detections, strict=True):
        assert words[0] == d.label
        assert [float(word) for word in words[1:]] == pytest.approx([d.score, *d.center, d.yaw], rel=1e-5, abs=1e-5)


@NATIVE
def test_a_real_frame_goes_in_and_pythons_boxes_come_out(embed: Path, shared_data: Path, tmp_path: Path) -> None:
    from imkd_edge.sources.astyx import AstyxSource

    bundle, sample = Bundle.load("astyx-lite"), AstyxSource(shared_data / "astyx")["000283"]
    check(boxes(embed, bundle, sample, tmp_path), bundle, sample, sample.frames)


@NATIVE
@pytest.mark.parametrize("absent", ["", "BEHIND"])
def test_a_made_up_frame_too_and_one_without_a_camera(
    embed: Path, bundle: Bundle, scene, tmp_path: Path, absent: str
) -> None:
    frames = {name: image for name, image in scene.frames.items() if name != absent}
    check(boxes(embed, bundle, scene, tmp_path, absent), bundle, scene, frames)


def test_the_example_is_one_short_file() -> None:
    sources = [path for path in (ROOT / "cpp" / "examples" / "embed").iterdir() if path.name != "CMakeLists.txt"]
    assert [path.name for path in sources] == ["embed.cpp"] and len(sources[0].read_text().splitlines()) <= 60


# ---- what the library shows and asks for ----
def symbols(library: Path, *options: str) -> set[str]:
    if not library.is_file():
        pytest.skip("the C++ library was not built: its symbols are NOT tested")
    lines = subprocess.run(
        ["nm", *options, str(library)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return {line.split()[-1].split("@")[0] for line in lines if line.strip() and not line.endswith(":")}


def test_the_c_library_shows_what_its_header_declares_and_nothing_else() -> None:
    header = (ROOT / "cpp" / "include" / "imkd" / "imkd.h").read_text()
    declared = re.findall(r"^IMKD_API .*?\b(imkd_\w+)\(", header, re.MULTILINE)
    assert symbols(BUILD / "libimkd.so", "-D", "--defined-only") == set(declared)
    assert (
        len(declared) == 35
    )  # 8 of the detector, 10 of the synchronizer, 8 of the monitor, 7 of the watchdog, 2 without a handle


def standard_streams(symbol: str) -> bool:
    """std::cin, cout, cerr, clog and their wide kin; what <iostream> makes of itself at the start of a program."""
    return (
        re.fullmatch(
            r"_ZSt3cin|_ZSt4(cout|cerr|clog|wcin)|_ZSt5(wcout|wcerr|wclog)|_ZNSt8ios_base4Init[CD]\dEv", symbol
        )
        is not None
    )


NEVER = {"exit", "_exit", "_Exit", "quick_exit", "abort", "__assert_fail", "raise", "kill", "fork", "system", "signal", "sigaction",
         "printf", "puts", "putchar", "fprintf", "fputs", "perror", "stdout", "stderr", "__printf_chk", "__fprintf_chk"}  # fmt: skip


@pytest.mark.parametrize("library", ["libimkd.a", "libimkd.so"])
def test_the_library_neither_prints_nor_ends_the_program(library: str) -> None:
    options = ["-D", "-u"] if library.endswith(".so") else ["-u"]
    asked = symbols(BUILD / library, *options)
    if library.endswith(".so") and "cudaMalloc" in symbols(BUILD / library):
        pytest.skip("it holds NVIDIA's static runtime, whose calls are not ours; libimkd.a is tested")
    assert "dlopen" in asked  # the list is not empty for a wrong reason
    assert not asked & NEVER and not any(map(standard_streams, asked))


def test_the_check_sees_an_exit_and_a_cout(tmp_path: Path) -> None:
    """The check itself must be able to fail."""
    (tmp_path / "bad.cpp").write_text(
        "#include <cstdlib>\n#include <iostream>\nvoid f() { std::cout << 1; std::exit(1); }\n"
    )
    run("c++", "-c", "bad.cpp", cwd=tmp_path)
    asked = symbols(tmp_path / "bad.o", "-u")
    assert asked & NEVER == {"exit"} and any(map(standard_streams, asked))
