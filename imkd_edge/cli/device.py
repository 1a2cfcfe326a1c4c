"""The verbs of the device: demo, infer, inspect, doctor, bench, build-engine. Heavy imports wait until a verb runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from imkd_edge.cli import report
from imkd_edge.cli.common import (
    ENVIRONMENT,
    GATE_FAILED,
    OK,
    Json,
    SourceName,
    SourceOptions,
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
from imkd_edge.cli.report_doctor import show_checks
from imkd_edge.cli.signing import Trust
from imkd_edge.errors import Code, Error
from imkd_edge.options import BenchOptions, BuildOptions, InferOptions, RunOptions, changed
from imkd_edge.view.page import check_page

BundleName = Annotated[str, typer.Argument(help="Folder NAME.imkd, or the name of a shipped bundle (tiny).")]
BundleOption = Annotated[
    str, typer.Option("--bundle", help="Folder NAME.imkd, or the name of a shipped bundle (tiny).")
]


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
    add(
        "inspect",
        epilog=examples(
            "imkd-edge inspect runs/fleet.imkd --trust require:keys",
            "imkd-edge inspect drives/monday.mcap --map drives/monday.toml",
        ),
    )(inspect)
    add(
        "doctor",
        epilog=examples(
            "imkd-edge doctor tiny --rig rig.json", "imkd-edge doctor runs/fleet.imkd --trust require:keys --json"
        ),
    )(doctor)
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
    option: SourceOptions = None,
    out: Annotated[Path, typer.Option(help="Folder for overview.png and result.json.")] = Path("runs/demo/latest"),
    threads: Threads = 0,
    theme: Annotated[str, typer.Option(help="Colours of the picture: dark or light.")] = "dark",
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
    options: InferOptions,
    run: RunOptions,
    bundle: BundleOption = "tiny",
    option: SourceOptions = None,
    json: Json = False,
) -> int:
    """Detect objects in the frames of a recording; with --json one line per frame."""
    from imkd_edge.bundle.format import Bundle
    from imkd_edge.checks.contract import WarningLog, compare_source, with_warnings
    from imkd_edge.detector import Detector
    from imkd_edge.sources.select import select
    from imkd_edge.view.save import save_frame

    if options.debug and not options.save:
        what = "the maps would not be shown"
        raise Error(Code.spec_bad_value, what, "--debug", "add --save: they are drawn into the picture")
    samples = select(source, options.split, options.frame, options.frames, parse_options(option)).first(options.limit)
    rig = samples.source[samples.names[0]].rig

    loaded, changes = Bundle.load(bundle, run.trust), WarningLog(log().print)
    unlike = tuple(compare_source(loaded, samples.source))
    with Detector(
        loaded, rig, run.device, run.engine, run.threads, score_threshold=options.score, debug=options.debug
    ) as detector:
        if options.save:  # the first frame allocates: the picture shows the time of a later one
            detector.infer_sample(samples.source[samples.names[0]])
            detector.reset()
        for sample in track(samples, len(samples), "infer"):
            result = with_warnings(detector.infer_sample(sample), unlike)
            changes.write(sample.name, result.health.warnings)
            record = result.to_dict()
            if options.save:
                folder = save_frame(options.out, sample, result, detector.spec, bundle, record, options.theme)
                log().print(f"wrote {folder / 'overview.png'}")
            if json:
                print_json(record, line=True)
            elif len(samples) == 1:
                report.show_frame(record)
            else:
                report.show_line(record)
    return OK


@verb
def inspect(
    name: Annotated[str, typer.Argument(help="A bundle, NAME.imkd or tiny; or an MCAP file or a ROS 2 bag.")],
    map: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the guessed topic map of a recording to this TOML file.")
    ] = None,
    trust: Trust = None,
    json: Json = False,
) -> int:
    """Print what is in a bundle, after verifying it, or in a recording: topics, rates, fields, a topic map."""
    from imkd_edge.bundle.format import Bundle
    from imkd_edge.cli.recording import show_recording
    from imkd_edge.sources.recording import inspect_recording, names_recording

    if names_recording(name):
        refuse({"--trust": trust}, f"{name} is a recording, which has no signature", "leave it out")
        content = inspect_recording(name, map)
        print_json(content) if json else show_recording(content)
        return OK
    _refuse_source(name)
    refuse({"--map": map}, f"{name} is no MCAP file or ROS 2 bag", "leave it out, or name a recording")
    loaded = Bundle.load(name, trust)
    card = {"path": str(loaded.path), "contract": None, **loaded.manifest}
    card |= {"revision": loaded.revision, "signature": loaded.signature.to_dict()}
    if json:
        print_json(card)
    else:
        report.show_card(card, loaded.spec, loaded.contract, str(loaded.signature))
    return OK


def _refuse_source(name: str) -> None:
    """Raises Error bundle_missing for a folder of frames, of which `check` tells."""
    from imkd_edge.sources.open import reader_of

    if not os.path.isdir(name) or os.path.isfile(os.path.join(name, "manifest.json")):
        return
    reader = reader_of(name)
    if reader is not None:
        kinds = {"folder": "a drive folder", "video": "a folder of videos or images"}
        kind = getattr(reader, "kind", "")
        what = f"it is {kinds.get(kind, f'recordings of the kind {kind}')}, no bundle"
        raise Error(Code.bundle_missing, what, name, f"imkd-edge check {name} says what is in it, and what is wrong")


@verb
def doctor(
    bundle: Annotated[str, typer.Argument(help="The bundle for --rig and --trust.")] = "tiny",
    rig: Annotated[
        Path | None, typer.Option(help="JSON file of a rig: report in what it is unlike the bundle's training.")
    ] = None,
    trust: Trust = None,
    json: Json = False,
) -> int:
    """Check this machine and this installation, and say how to mend what is wrong; also a vehicle, or a signature."""
    from imkd_edge.checks.doctor import examine

    findings = examine(bundle, rig, trust)
    if json:
        print_json(findings)
    else:
        show_checks(findings)
    return OK if findings["status"] != "fail" else ENVIRONMENT


BenchSource = Annotated[
    str,
    typer.Option("--data", "--source", help="Recording or synth: its first frames are loaded beforehand and repeated."),
]
MaxP99 = Annotated[
    float | None,
    typer.Option(metavar="MS", callback=finite, help="Exit with code 1 where the 99th percentile is above this, ms."),
]
BenchPage = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write a page with histogram, timeline and stages.")
]
Ops = Annotated[
    bool, typer.Option("--ops", help="Instead time the ops beside OpenCV, NumPy and torch, and beside a plain copy.")
]
PredictFor = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="Instead predict the times on orin-agx-64, orin-nx-16, orin-nano-8 or thor; nothing is run.",
    ),
]
PredictedPrecision = Annotated[
    str, typer.Option(help="With --predict: fp16, int8, or auto, as the bundle's graphs say.")
]


@verb
def bench(
    options: BenchOptions,
    run: RunOptions,
    bundle: BundleName = "tiny",
    source: BenchSource = "synth",
    option: SourceOptions = None,
    max_p99: MaxP99 = None,
    html: BenchPage = None,
    ops: Ops = False,
    predict: PredictFor = None,
    precision: PredictedPrecision = "auto",
    json: Json = False,
) -> int:
    """Measure the time per frame, from the caller's arrays to boxes, and of each stage; or predict it for a Jetson."""
    timing = {**changed(options), **changed(run), "--max-p99": max_p99, "--html": html}
    timing.pop("--threads", None)
    if predict is not None:
        refuse({**timing, "--ops": ops, "--option": option}, "nothing is run", "leave it out, or --predict")
        result = import_extra("imkd_edge.predict.roofline", "quantize").predict(bundle, predict, precision)
        print_json(result) if json else report.show_prediction(result)
        return OK
    refuse({"--precision": precision}, "belongs to --predict", "leave it out, or add --predict DEVICE")
    if ops:
        from imkd_edge.bench import bench_ops

        refuse(timing, "belongs to whole frames on a detector", "leave it out, or --ops")
        result = bench_ops(bundle, source, run.threads, options=parse_options(option), track=bar("bench --ops"))
        print_json(result) if json else report.show_ops(result)
        return OK
    return _bench_frames(bundle, source, options, parse_options(option), run, max_p99, html, json)


def _bench_frames(
    bundle: str,
    source: str,
    options: BenchOptions,
    source_options: dict[str, Any],
    run: RunOptions,
    max_p99: float | None,
    html: Path | None,
    json: bool,
) -> int:
    import imkd_edge.bench as benchmark

    if html is not None:
        check_page(html)
    result = benchmark.bench(bundle, source, options, source_options=source_options, run=run, track=bar("bench"))
    shown = {name: value for name, value in result.items() if name != "series"}
    print_json(shown) if json else report.show_bench(shown)
    if html is not None:
        benchmark.write_page(result, html)
    if max_p99 is not None and result["total_ms"]["p99"] > max_p99:
        log().print(f"p99 is {result['total_ms']['p99']:.2f} ms, above {max_p99:g}")
        return GATE_FAILED
    return OK


@verb
def build_engine(bundle: BundleName, options: BuildOptions, json: Json = False) -> int:
    """Build TensorRT engines for this machine and run the bundle's golden drive: exit code 1 where its boxes differ.

    An engine that still fits this machine, its TensorRT and the bundle is not built again."""
    from imkd_edge.checks.built_engines import check_engines
    from imkd_edge.engines.build import build_engines

    with phases() as progress:
        result = build_engines(bundle, options, progress=progress)
    result["self_test"] = check_engines(result)
    if json:
        print_json(result)
    else:
        report.show_engines(result)
    return GATE_FAILED if result["self_test"].startswith("failed") else OK
