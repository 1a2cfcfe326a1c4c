"""The verbs of the device: demo, infer, inspect, doctor, bench, build-engine. Heavy imports wait until a verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imkd_edge.bundle.files import check_writable
from imkd_edge.cli import report
from imkd_edge.cli.common import (
    ENVIRONMENT,
    GATE_FAILED,
    OK,
    Device,
    EngineName,
    Json,
    Options,
    Threads,
    bar,
    examples,
    finite,
    import_extra,
    log,
    parse_options,
    phases,
    print_json,
    refuse,
    track,
    verb,
)
from imkd_edge.errors import Code, Error
from imkd_edge.spec import SCORES

BundleName = Annotated[str, typer.Argument(help="Folder NAME.imkd, or the name of a shipped bundle (tiny).")]
BundleOption = Annotated[
    str, typer.Option("--bundle", help="Folder NAME.imkd, or the name of a shipped bundle (tiny).")
]
SourceName = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="Folder of an Astyx, nuScenes or View-of-Delft recording, or synth, or synth:SEED."
    ),
]
FrameNames = Annotated[list[str] | None, typer.Option("--frame", help="Name of a frame; may be given several times.")]
FrameRange = Annotated[str | None, typer.Option("--frames", help="FIRST-LAST, or a text file with one name per line.")]
Score = Annotated[
    float | None,
    typer.Option(
        min=SCORES[0], max=SCORES[1], callback=finite, help="Drop boxes below this score; the default is the bundle's."
    ),
]
Theme = Annotated[str, typer.Option(help="Colours of pictures: dark or light.")]


def register(app: typer.Typer) -> None:
    """Adds the verbs to the application."""
    add = app.command
    add("demo", epilog=examples("imkd-edge demo", "imkd-edge demo --frame 3 --out runs/demo/third --json"))(demo)
    add(
        "infer",
        epilog=examples(
            "imkd-edge infer synth --bundle tiny --frame 3 --save",
            "imkd-edge infer recordings/astyx --bundle astyx-lite --frames 000105-000132 --json > boxes.jsonl",
        ),
    )(infer)
    add("inspect", epilog=examples("imkd-edge inspect tiny", "imkd-edge inspect runs/astyx-lite.imkd --json"))(inspect)
    add("doctor", epilog=examples("imkd-edge doctor", "imkd-edge doctor --json"))(doctor)
    add(
        "bench",
        epilog=examples(
            "imkd-edge bench tiny --rate 20 --frames 400 --max-p99 50 --html bench.html",
            "imkd-edge bench tiny --predict orin-agx-64 --json",
        ),
    )(bench)
    add(
        "build-engine",
        epilog=examples(
            "imkd-edge build-engine tiny --out runs/tiny.engines",
            "imkd-edge build-engine runs/astyx-lite.imkd --workspace 512 --timing-cache runs/timings.bin --json",
        ),
    )(build_engine)


@verb
def demo(
    bundle: BundleOption = "tiny",
    source: Annotated[str, typer.Option(help="What to look at: synth, synth:SEED or a recording.")] = "synth",
    frame: Annotated[
        str | None, typer.Option(help="Name or number of the frame; the default is one that training has not seen.")
    ] = None,
    option: Options = None,
    out: Annotated[Path, typer.Option(help="Folder for overview.png and result.json.")] = Path("runs/demo/latest"),
    threads: Threads = 0,
    theme: Theme = "dark",
    json: Json = False,
) -> int:
    """Detect objects in one frame, print them and draw an overview."""
    from imkd_edge.cli.demo import run_demo

    result = run_demo(bundle, source, frame, out, threads, theme, parse_options(option))
    if json:
        print_json(result)
    else:
        report.show_frame(result)
        log().print(f"wrote {out / 'overview.png'} and {out / 'result.json'}: open the picture")
    return OK


@verb
def infer(
    source: SourceName,
    bundle: BundleOption = "tiny",
    frame: FrameNames = None,
    frames: FrameRange = None,
    split: Annotated[str | None, typer.Option(help="Only the frames of this split.")] = None,
    option: Options = None,
    save: Annotated[bool, typer.Option("--save", help="Write OUT/FRAME/overview.png and result.json.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for --save.")] = Path("runs/infer"),
    debug: Annotated[bool, typer.Option("--debug", help="With --save: also draw the gate maps.")] = False,
    score: Score = None,
    threads: Threads = 0,
    device: Device = "auto",
    engine: EngineName = "auto",
    theme: Theme = "dark",
    json: Json = False,
) -> int:
    """Detect objects in the frames of a recording; with --json one line per frame."""
    from imkd_edge.detector import Detector
    from imkd_edge.sources.select import select
    from imkd_edge.view.save import save_frame

    if debug and not save:
        raise Error(
            Code.spec_bad_value,
            "the maps would be seen by nobody",
            "--debug",
            "add --save: they are drawn into the picture",
        )
    chosen = select(source, split=split, names=frame or [], span=frames, options=parse_options(option))
    rig = chosen.source[chosen.names[0]].rig
    with Detector(
        bundle, rig, device=device, engine=engine, threads=threads, score_threshold=score, debug=debug
    ) as detector:
        for sample in track(chosen, len(chosen), "infer"):
            result = detector.infer_sample(sample)
            record = {"frame": sample.name, **result.to_dict()}
            if save:
                folder = save_frame(out, sample, result, detector.spec, bundle, record, theme)
                log().print(f"wrote {folder / 'overview.png'}")
            if json:
                print_json(record, line=True)
            elif len(chosen) == 1:
                report.show_frame(record)
            else:
                report.show_line(record)
    return OK


@verb
def inspect(bundle: BundleName, json: Json = False) -> int:
    """Verify a bundle and print what is in it: sizes, classes, files, metrics, origin."""
    from imkd_edge.bundle import Bundle

    loaded = Bundle.load(bundle)
    card = {"path": str(loaded.path), **loaded.manifest}
    if json:
        print_json(card)
    else:
        report.show_card(card, loaded.spec)
    return OK


@verb
def doctor(json: Json = False) -> int:
    """Check this machine and this installation; says how to mend what is wrong."""
    from imkd_edge.checks.doctor import examine

    found = examine()
    if json:
        print_json(found)
    else:
        report.show_checks(found)
    return OK if found["status"] != "fail" else ENVIRONMENT


@verb
def bench(
    bundle: BundleName = "tiny",
    frames: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="How many timed frames; 6636 by default.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="HZ", callback=finite, help="Pace frames as sensors do, and count missed deadlines."),
    ] = None,
    max_p99: Annotated[
        float | None,
        typer.Option(metavar="MS", callback=finite, help="Exit with code 1 where the 99th percentile is above."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page with histogram, timeline and stages.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="What to feed; its first frames are loaded beforehand and repeated.")
    ] = "synth",
    option: Options = None,
    warmup: Annotated[int | None, typer.Option(min=0, help="Frames before the clock starts; 20 by default.")] = None,
    threads: Threads = 0,
    device: Device = "auto",
    engine: EngineName = "auto",
    ops: Annotated[
        bool, typer.Option("--ops", help="Instead time our ops against the usual code and a plain copy.")
    ] = False,
    predict: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE", help="Predict for orin-agx-64, orin-nx-16, orin-nano-8 or thor instead; nothing is run."
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="With --predict: fp16, int8, or auto, as the bundle's graphs say.")
    ] = "auto",
    json: Json = False,
) -> int:
    """Measure the time per frame, from the caller's arrays to boxes, and of each stage; or predict it for a Jetson."""
    import imkd_edge.bench as benchmark

    counts = {name: value for name, value in (("frames", frames), ("warmup", warmup)) if value is not None}
    timing = {"--rate": rate, "--max-p99": max_p99, "--html": html, "--device": device, "--engine": engine}
    timing |= {f"--{name}": str(value) for name, value in counts.items()}
    options = parse_options(option)
    if predict is not None:
        refuse({**timing, "--ops": ops, "--option": option}, "nothing is run", "leave it out, or --predict")
        result = import_extra("imkd_edge.predict.roofline", "quantize").predict(bundle, predict, precision)
        print_json(result) if json else report.show_prediction(result)
        return OK
    refuse({"--precision": precision}, "belongs to --predict", "leave it out, or add --predict DEVICE")
    if ops:
        refuse(timing, "belongs to whole frames on a detector", "leave it out, or --ops")
        result = benchmark.bench_ops(bundle, source, threads=threads, options=options, track=bar("bench --ops"))
        print_json(result) if json else report.show_ops(result)
        return OK
    if html is not None:
        check_writable(html)
    settings: dict[str, Any] = {"threads": threads, "device": device, "engine": engine, "options": options, **counts}
    result = benchmark.bench(bundle, source, rate=rate, track=bar("bench"), **settings)
    shown = {name: value for name, value in result.items() if name != "series"}
    print_json(shown) if json else report.show_bench(shown)
    if html is not None:
        benchmark.write_page(result, html)
    if max_p99 is not None and result["total_ms"]["p99"] > max_p99:
        log().print(f"p99 is {result['total_ms']['p99']:.2f} ms, above {max_p99:g}")
        return GATE_FAILED
    return OK


@verb
def build_engine(
    bundle: BundleName,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the engines; the default is NAME.engines beside NAME.imkd.")
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(min=1, metavar="MB", help="Most memory for one layer; the default is all.")
    ] = None,
    dla: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Core of the deep learning accelerator that takes what it can."),
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Kernel times of earlier builds: read, then written.")
    ] = None,
    io: Annotated[
        str,
        typer.Option(
            help="The engines' tensors: auto, float16 where a part computes in it, context channels last; or onnx, as in it."
        ),
    ] = "auto",
    builder: Annotated[
        str, typer.Option(help="The Python package: tensorrt, or tensorrt_rtx, which also builds without a GPU.")
    ] = "tensorrt",
    json: Json = False,
) -> int:
    """Build TensorRT engines for this machine, then run the bundle's golden frame through them: exit code 1 where its boxes differ.

    An engine that still fits this machine, its TensorRT and the bundle is kept."""
    from imkd_edge.checks.selftest import check_engines
    from imkd_edge.engines.build import build_engines

    with phases() as progress:
        result = build_engines(
            bundle, out, workspace_mb=workspace, dla=dla, timing_cache=timing_cache, io=io, builder=builder, progress=progress
        )  # fmt: skip
    result["self_test"] = check_engines(result)
    if json:
        print_json(result)
    else:
        report.show_engines(result)
    return GATE_FAILED if result["self_test"].startswith("failed") else OK
