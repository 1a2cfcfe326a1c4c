"""The verbs of the workstation, from train to eval; export is beside it. Torch waits until a verb needs it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from imkd_edge.cli import report
from imkd_edge.cli.common import (
    GATE_FAILED,
    OK,
    Json,
    SourceName,
    SourceOptions,
    Threads,
    bar,
    examples,
    log,
    parse_options,
    print_json,
    refuse,
    verb,
)
from imkd_edge.cli.common import import_extra as _extra
from imkd_edge.cli.export import checkpoint_of
from imkd_edge.cli.monitor import TrainingLine
from imkd_edge.cli.report_compare import show_comparison, show_quantization
from imkd_edge.errors import Code, Error
from imkd_edge.options import (
    CompareOptions,
    EvalOptions,
    LabelOptions,
    QuantizeOptions,
    RunOptions,
    TrainOptions,
    changed,
)


def register(app: typer.Typer) -> None:
    """Adds the verbs to the application."""
    add = app.command
    add(
        "train",
        epilog=examples(
            "imkd-edge train mine.toml --from tiny --set train.val_split=val --set train.rate=1e-3 --out runs/mine",
            "imkd-edge train mine.toml --out runs/mine --resume --epochs 40",
        ),
    )(train)
    add(
        "label",
        epilog=examples(
            "imkd-edge label drives/yard --teacher runs/yard --to drives/yard-labelled",
            "imkd-edge label drives/yard --teacher runs/yard --to drives/yard-sure --score 0.6 --limit 100 --json",
        ),
    )(label)
    add(
        "contract",
        epilog=examples(
            "imkd-edge contract runs/astyx-lite.imkd --data recordings/astyx",
            "imkd-edge contract runs/tiny.imkd --data synth --limit 84 --decode --json",
        ),
    )(contract)
    add(
        "quantize",
        epilog=examples(
            "imkd-edge quantize astyx-lite --data recordings/astyx --out runs/astyx-lite.int8.imkd",
            "imkd-edge quantize tiny --data synth --option scenes=4 --qat --steps 200 --frames 64 "
            "--out runs/tiny.int8.imkd",
        ),
    )(quantize)
    add(
        "compare",
        epilog=examples(
            "imkd-edge compare astyx-lite astyx-lite --engines onnxruntime,torch --tolerance 1e-6",
            "imkd-edge compare tiny runs/tiny.int8.imkd --data synth --split val --json",
        ),
    )(compare)
    add(
        "eval",
        epilog=examples(
            "imkd-edge eval tiny --data synth --split val",
            "imkd-edge eval runs/yard.imkd --data drives/yard --split val --per-range",
        ),
    )(evaluate)


@verb
def train(
    config: Annotated[
        str,
        typer.Argument(
            help="TOML file, or tiny, tiny-t4, astyx-lite, astyx-taught, r18-nuscenes, r50-nuscenes or r50-imkd."
        ),
    ],
    options: TrainOptions,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="CONFIG is a plan: a file, or one of training/ablations, such as astyx.")
    ] = False,
    row: Annotated[
        list[str] | None, typer.Option(help="Row of the plan, with --ablation; the default is all; repeatable.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the rows, such as 0,1; the default is the plan's.")] = "",
    option: SourceOptions = None,
    json: Json = False,
) -> int:
    """Train a student, after its LiDAR teacher if its config distils; writes checkpoints and one log line per epoch.

    With a train.val_split it measures that split every val_every epochs, draws frames of it, and writes best.pt.
    """
    if ablation:
        refuse({"--option": option}, "a plan has its own", "leave it out")
        with_plan = ("--data", "--out", "--teacher", "--resume")
        single = {name: value for name, value in changed(options).items() if name not in with_plan}
        refuse(single, "a plan has its own", "leave it out")
        return _ablate(config, options, row or [], seeds, json)
    refuse({"--row": row, "--seeds": seeds or None}, "belongs to a plan", "add --ablation")
    program = _extra("imkd_edge.training.program", "train")
    with TrainingLine(log()) as monitor:
        result = program.train(
            config, options, source_options=parse_options(option), progress=bar("read"), monitor=monitor
        )
    if result:  # of the processes that torchrun starts, only the first returns one
        shown = result if json else {name: value for name, value in result.items() if name != "validation"}
        report.show_result("training", shown, json)
        log().print(f"next: imkd-edge eval {options.out} --data ..., imkd-edge export {options.out} --out NAME.imkd")
    return OK


@verb
def label(
    source: SourceName,
    teacher: Annotated[
        Path, typer.Option(help="Folder of a run of train with a LiDAR teacher, or a checkpoint.pt.", metavar="RUN")
    ],
    to: Annotated[Path, typer.Option(help="The drive folder to write; of an interrupted run it is continued.")],
    options: LabelOptions,
    option: SourceOptions = None,
    json: Json = False,
) -> int:
    """Let a trained LiDAR teacher label a recording: a drive folder with its boxes and scores, for a person to correct.

    Train on it as it is (pseudo-labels), or open it in a label editor first.
    """
    module = _extra("imkd_edge.training.label", "train")
    result = module.label(source, teacher, to, options, source_options=parse_options(option), track=bar("label"))
    report.show_result("labels", result, json)
    return OK


def _ablate(name: str, options: TrainOptions, rows: list[str], seeds: str, json: bool) -> int:
    ablation = _extra("imkd_edge.training.ablation", "train")
    plan = ablation.load_plan(name, options.data)
    results = ablation.ablate(
        plan, options.out, rows, parse_seeds(seeds), options.teacher, progress=bar("ablation"), log=log().print
    )
    table = _extra("imkd_edge.training.ablation_report", "train").report(results, options.out)
    if json:
        print_json({"out": str(options.out), "finished": len(results["runs"]), "rows": table})
    else:
        log().print(f"{options.out / 'table.md'}, {options.out / 'plot.png'}")
    return OK


def parse_seeds(text: str) -> list[int]:
    """ "0,1" as [0, 1]; raises Error spec_bad_value."""
    try:
        seeds = [int(seed) for seed in text.split(",") if seed]
        if min(seeds, default=0) < 0:
            raise ValueError
        return seeds
    except ValueError:
        raise Error(
            Code.spec_bad_value, f"{text!r} is no list of seeds", "--seeds", "write for example --seeds 0,1"
        ) from None


@verb
def contract(
    bundle: Annotated[str, typer.Argument(help="Folder NAME.imkd, or the name of a shipped bundle; it is changed.")],
    data: Annotated[str, typer.Option(help="What the bundle was trained on: folder of a recording, or synth.")],
    split: Annotated[str | None, typer.Option(help="Its training split; the default is that of the training.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Frames to read, evenly spaced; the default is 500.")] = None,
    decode: Annotated[
        bool,
        typer.Option("--decode", help="Also set the spec's limits of box sizes and its exclusive classes by the data."),
    ] = False,
    option: SourceOptions = None,
    json: Json = False,
) -> int:
    """Measure what a bundle was trained on and write it into the bundle: its detector warns of what is unlike it."""
    from imkd_edge.checks.contract import measure_bundle
    from imkd_edge.checks.limits import update_decode

    result = measure_bundle(bundle, data, split, limit, parse_options(option), bar("contract"))
    if decode:
        update_decode(bundle)
    if json:
        print_json(asdict(result))
    else:
        report.show_contract(bundle, result)
    return OK


@verb
def quantize(
    bundle: Annotated[str, typer.Argument(help="Float bundle: folder NAME.imkd, or the name of a shipped one.")],
    data: Annotated[
        str, typer.Option(help="Folder of a recording by the bundle's sensors, or synth: what to calibrate on.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write, NAME.int8.imkd.")],
    options: QuantizeOptions,
    option: SourceOptions = None,
    threads: Threads = 0,
    json: Json = False,
) -> int:
    """Turn a float bundle into an INT8 one, after training or with it; the same command continues where it stopped."""
    module = _extra("imkd_edge.quantization.quantize", "quantize")
    if options.qat or options.refine:
        _extra("imkd_edge.quantization.qat", "train")
    result = module.quantize(bundle, data, out, options, source_options=parse_options(option), threads=threads, bar=bar)
    print_json(result) if json else show_quantization(result)
    return OK if result["accepted"] else GATE_FAILED


@verb
def compare(
    a: Annotated[str, typer.Argument(help="The reference: folder NAME.imkd, or the name of a shipped bundle.")],
    b: Annotated[str, typer.Argument(help="Another form of the same model.")],
    options: CompareOptions,
    data: Annotated[
        str | None, typer.Option(help="Also on frames of this recording, or synth; else the golden drive only.")
    ] = None,
    option: SourceOptions = None,
    threads: Threads = 0,
    json: Json = False,
) -> int:
    """Compare two bundles of one model tensor by tensor and box by box, and name the first tensor that differs."""
    module = _extra("imkd_edge.evaluation.compare", "quantize")
    result = module.compare(
        a, b, data, options, source_options=parse_options(option), threads=threads, track=bar("compare")
    )
    print_json(result) if json else show_comparison(result)
    return OK if result["within"] else GATE_FAILED


@verb
def evaluate(
    bundle: Annotated[
        str,
        typer.Argument(help="Folder NAME.imkd, a shipped bundle's name (tiny), or a run's folder or checkpoint.pt."),
    ],
    data: Annotated[str, typer.Option(help="Folder of a labelled recording, or synth.")],
    options: EvalOptions,
    run: RunOptions,
    option: SourceOptions = None,
    json: Json = False,
) -> int:
    """Measure a bundle on labelled frames: the official metrics of a data set, or for any classes AP by class."""
    source_options = parse_options(option)
    bundle = str(checkpoint_of(Path(bundle), best=False))
    if bundle.endswith(".pt"):
        refuse(changed(replace(run, threads=0)), "a checkpoint runs in torch on the CPU", "leave it out")
        module = _extra("imkd_edge.training.evaluate", "train")
        result = module.evaluate_checkpoint(
            bundle, data, options, source_options=source_options, threads=run.threads, track=bar("eval")
        )
    else:
        from imkd_edge.evaluation.run import evaluate_bundle

        result = evaluate_bundle(bundle, data, options, source_options=source_options, run=run, track=bar("eval"))
    if json:
        print_json(result)
    else:
        title = f"{bundle} on {data}, split {result['split']}, {result['frames']} frames"
        title += f" ({result['unlabelled']} more without labels are left out)" if result["unlabelled"] else ""
        if result["protocol"] == "classes":
            from imkd_edge.cli.report_classes import show_classes

            show_classes(title, result)
        else:
            report.show_numbers(title, result["metrics"])
    return OK
