"""C++ includes: a file includes its own and lower layers, public headers only each other, and there is no circle."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

CPP = Path(__file__).resolve().parents[1] / "cpp"
PUBLIC = "include/imkd/"
ELSEWHERE = {"cuda_host.hpp"}  # of tests/cpp/cuda, where kernels run on the CPU

LAYERS = {  # from the bottom; patterns of paths below cpp/
    "base": "include/imkd/{error,geometry,thread_pool,box_channels}.hpp "
    "src/{error,exclusive_call,own_process,geometry,thread_pool,time_ns,shape_text,sha256,half,onnx_external}.?pp "
    "src/{number_text,shared_library,crypto,minisign}.?pp",
    "description": "include/imkd/{spec,rig,frames,result,contract}.hpp src/{fields,json,spec,rig,result,contract}.?pp",
    "cuda_runtime": "src/cuda_runtime/*",
    "engine": "include/imkd/{engine,bundle}.hpp src/{bundle,trust}.?pp src/engine/*",
    "ops": "include/imkd/{ops,cuda,coverage,ego_motion}.hpp src/{coverage,ego_motion}.cpp src/ops/*",
    "interface": "include/imkd/detector.hpp",
    "loop": "src/{buffers,history,frame_loop,cpu_loop,no_cuda}.?pp src/cuda/*",
    "detector": "src/{detector,device_policy,contract_check,rig_warnings,sensor_memory}.?pp",
    "live": "include/imkd/{synchronizer,monitor,watchdog,tracker}.hpp "
    "src/{synchronizer*,monitor*,watchdog*,ego_trail*,live_*,frame_rule*,sensor_queue*}.?pp "
    "src/{tracker,track_object,assignment,odometry,track_filter}.?pp",
    "c": "include/imkd/imkd.h src/c/*",
    "bindings": "bindings/*",
}


def alternatives(pattern: str) -> list[str]:
    """A pattern without its braces: "{a,b}.hpp" is "a.hpp" and "b.hpp"."""
    match = re.search(r"\{([^}]*)\}", pattern)
    return [pattern.replace(match[0], name) for name in match[1].split(",")] if match else [pattern]


def layer_of(path: str) -> str:
    names = [
        name
        for name, patterns in LAYERS.items()
        if any(fnmatch(path, one) for pattern in patterns.split() for one in alternatives(pattern))
    ]
    assert len(names) == 1, f"cpp/{path} is in the layers {names}; list it in exactly one layer of LAYERS"
    return names[0]


def includes() -> dict[str, set[str]]:
    """Path below cpp/ -> the paths that it includes; system headers and other libraries left out."""
    graph = {}
    for folder in ("include", "src", "bindings"):
        for file in sorted((CPP / folder).rglob("*.*")):
            if file.suffix not in (".hpp", ".cpp", ".cu", ".h"):
                continue
            names = re.findall(r'^\s*#\s*include\s+"([^"]+)"', file.read_text(), re.MULTILINE)
            targets = set()
            for name in names:
                roots = (file.parent, CPP / "src", CPP / "include")
                path = next((root / name for root in roots if (root / name).is_file()), None)
                assert path or name in ELSEWHERE, f"{file}: there is no {name}"
                if path:
                    targets.add(path.resolve().relative_to(CPP).as_posix())
            graph[file.relative_to(CPP).as_posix()] = targets
    return graph


GRAPH = includes()


def test_a_file_includes_no_higher_layer() -> None:
    order = list(LAYERS)
    upward = [
        f"{file} ({layer_of(file)}) includes {target} ({layer_of(target)})"
        for file, targets in GRAPH.items()
        for target in sorted(targets)
        if order.index(layer_of(target)) > order.index(layer_of(file))
    ]
    assert not upward, "\n".join(upward)


def test_public_headers_include_public_headers_only() -> None:
    private = [
        f"{file} includes {target}"
        for file, targets in GRAPH.items()
        if file.startswith(PUBLIC)
        for target in sorted(targets)
        if not target.startswith(PUBLIC)
    ]
    assert not private, "\n".join(private)


def test_there_is_no_circle() -> None:
    assert len(list(TopologicalSorter(GRAPH).static_order())) == len(GRAPH)


def test_every_layer_has_files() -> None:
    assert {layer_of(file) for file in GRAPH} == set(LAYERS)
