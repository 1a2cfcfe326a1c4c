"""The verbs of the workstation: train, export, quantize, compare, eval. Torch is imported only when a verb needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imkd_edge.cli import report
from imkd_edge.cli.common import (
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
    log,
    parse_options,
    print_json,
    refuse,
    verb,
)
from imkd_edge.cli.common import import_extra as _extra
from imkd_edge.errors import Code, Error
from imkd_edge.spec import SCORES


def register(app: typer.Typer) -> None:
    """Adds the verbs to the application."""
    add = app.command
    add(
        "train",
        epilog=examples(
            "imkd-edge train astyx-lite --data recordings/astyx --split train --out runs/astyx-lite --seed 1 --resume",
            "imkd-edge train astyx --ablation --data recordings/astyx --out runs/ablation",
        ),
    )(train)
    add(
        "export",
        epilog=examples(
            "imkd-edge export runs/tiny/checkpoint.pt --out runs/tiny.imkd",
            "imkd-edge export runs/astyx-lite/checkpoint.pt --out runs/astyx-lite.imkd --metrics runs/astyx-lite/eval.json",
        ),
    )(export)
    add(
        "quantize",
        epilog=examples(
            "imkd-edge quantize astyx-lite --data recordings/astyx --out runs/astyx-lite.int8.imkd",
            "imkd-edge quantize tiny --data synth --option scenes=4 --qat --steps 200 --frames 64 --out runs/tiny.int8.imkd",
        ),
    )(quantize)
    add(
        "compare",
        epilog=examples(
            "imkd-edge compare astyx-lite astyx-lite --engines onnxruntime,torch --tolerance 1e-6",
            "imkd-edge compare tiny runs/tiny.int8.imkd --data synth --limit 4 --tolerance 0.02 --json",
        ),
    )(compare)
    add(
        "eval",
        epilog=examples(
            "imkd-edge eval tiny --data synth --split val",
            "imkd-edge eval runs/astyx-lite.imkd --data recordings/astyx --split val --per-range --per-block --json",
        ),
    )(evaluate)


@verb
def train(
    config: Annotated[
        str,
        typer.Argument(help="TOML file, or one of tiny, tiny-t4, astyx-lite, astyx-imkd, r18-nuscenes, r50-nuscenes."),
    ],
    data: Annotated[str | None, typer.Option(help="Folder or name of the source; the default is the config's.")] = None,
    split: Annotated[str | None, typer.Option(help="Train on this split; the default is the config's.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for checkpoint.pt and log.jsonl.")] = Path("runs/train"),
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and of every random draw.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT/checkpoint.pt.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of the student, instead of the config's number.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="OUT of an earlier run, whose LiDAR teacher serves again.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for decoded samples and frozen features, which runs may share.")
    ] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="CONFIG is a plan: astyx, astyx-fold, astyx-long, synth.")
    ] = False,
    row: Annotated[list[str] | None, typer.Option(help="Of the plan, instead of all; repeatable.")] = None,
    seeds: Annotated[str, typer.Option(help="Of the plan's rows, such as 0,1; the default is the plan's.")] = "",
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Train a student, after its LiDAR teacher if its config distils; leaves checkpoints and a log with one line per epoch."""
    whole = {
        "--split": split,
        "--epochs": epochs,
        "--cache": cache,
        "--seed": seed or None,
        "--device": device,
    }
    if ablation:
        refuse(whole, "a plan says itself", "leave it out")
        return _ablate(config, data, out, row or [], seeds, teacher, json)
    refuse({"--row": row, "--seeds": seeds or None}, "belongs to a plan", "add --ablation")
    main = _extra("imkd_edge.training.main", "train")
    result = main.train(
        config,
        data=data,
        out=out,
        seed=seed,
        resume=resume,
        epochs=epochs,
        split=split,
        teacher=teacher,
        progress=bar("train"),
        cache=cache,
        device=device,
    )
    if result:  # of the processes that torchrun starts, the first alone has one
        _show("training", result, json)
    return OK


def _ablate(
    name: str, data: str | None, out: Path, rows: list[str], seeds: str, teacher: Path | None, json: bool
) -> int:
    ablation = _extra("imkd_edge.training.ablation", "train")
    plan = ablation.load_plan(name, data)
    chosen = parse_seeds(seeds)
    results = ablation.ablate(plan, out, rows, chosen, teacher, progress=bar("ablation"), told=log().print)
    table = _extra("imkd_edge.training.ablation_report", "train").report(results, out)
    if json:
        print_json({"out": str(out), "finished": len(results["runs"]), "rows": table})
    else:
        log().print(f"{out / 'table.md'}, {out / 'plot.png'}")
    return OK


def parse_seeds(text: str) -> list[int]:
    """ "0,1" as [0, 1]; raises Error spec_bad_value."""
    try:
        found = [int(seed) for seed in text.split(",") if seed]
        if min(found, default=0) < 0:
            raise ValueError
        return found
    except ValueError:
        raise Error(
            Code.spec_bad_value, f"{text!r} is no list of seeds", "--seeds", "write for example --seeds 0,1"
        ) from None


@verb
def export(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pt of a training.")],
    out: Annotated[Path, typer.Option(help="The bundle to write, NAME.imkd.")],
    data: Annotated[str | None, typer.Option(help="Source of the golden frame; the default is the training's.")] = None,
    metrics: Annotated[Path | None, typer.Option(help="Output of imkd-edge eval --json, for the model card.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights in 16 bits, for half the size.")] = False,
    json: Json = False,
) -> int:
    """Turn a checkpoint into a bundle that the device loads."""
    if not checkpoint.is_file():
        raise Error(
            Code.train_checkpoint,
            "no such checkpoint",
            str(checkpoint),
            "give the checkpoint.pt that imkd-edge train wrote",
        )
    result = _extra("imkd_edge.training.export", "train").export(checkpoint, out, data=data, metrics=metrics, half=half)
    _show("bundle", result, json)
    return OK


@verb
def quantize(
    bundle: Annotated[str, typer.Argument(help="Float bundle: folder NAME.imkd, or the name of a shipped one.")],
    data: Annotated[
        str, typer.Option(help="Folder of a recording by the bundle's sensors, or synth: what to calibrate on.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write, NAME.int8.imkd.")],
    method: Annotated[
        str, typer.Option(help="Calibrator: mse, riac, occupancy, percentile, entropy, max or placebo.")
    ] = "mse",
    kappa: Annotated[
        float,
        typer.Option(callback=finite, help="riac: how much more a strong radar return counts than a weak one, 0 to 1."),
    ] = 0.5,
    percentile: Annotated[float, typer.Option(callback=finite, help="Of the values, for --method percentile.")] = 99.99,
    bits: Annotated[
        int, typer.Option(help="Fewer than 8 for a study: the integers stay int8, but use only so many levels.")
    ] = 8,
    frames: Annotated[int, typer.Option(min=16, help="How many to calibrate on, chosen by their radar.")] = 128,
    split: Annotated[
        str | None, typer.Option(help="Of the source, or all; the default is train, where the source has it.")
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(help="Layer that stays float, NAME, camera/NAME or bev/NAME; repeatable.")
    ] = None,
    gate: Annotated[
        float | None,
        typer.Option(min=0, callback=finite, help="Layers go back to float until no output's NMSE is above this."),
    ] = None,
    collection: Annotated[
        Path | None, typer.Option(help="File of the observers' counts, gone on with; beside OUT by default.")
    ] = None,
    typing: Annotated[
        str, typer.Option(help="Of the float rest: float32, or float16 for TensorRT; the other lies beside.")
    ] = "float32",
    evaluate: Annotated[
        str | None, typer.Option(help="Measure float and INT8 on this split of the source, for the model card.")
    ] = None,
    qat: Annotated[
        bool, typer.Option("--qat", help="Then train it on the calibration frames to say what the float bundle says.")
    ] = False,
    refine: Annotated[
        bool, typer.Option("--refine", help="The same with weights as they are: only scales are learnt.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Of --qat and --refine, for each part, two frames each.")] = 150,
    seed: Annotated[int, typer.Option(help="Of --qat and --refine: of the order of the frames.")] = 0,
    html: Annotated[
        Path | None, typer.Option(help="Write a page on ranges, weights and layers, and its data as JSON.")
    ] = None,
    option: Options = None,
    threads: Threads = 0,
    json: Json = False,
) -> int:
    """Turn a float bundle into an INT8 one, after training or with it; interrupted, the same command goes on."""
    module = _extra("imkd_edge.quantization.quantize", "quantize")
    chosen = module.Method(method, bits, kappa, percentile)
    training = module.Training(steps, seed=seed, weights=qat) if qat or refine else None
    if training:
        _extra("imkd_edge.quantization.qat", "train")
    if qat and refine:
        raise Error(Code.spec_bad_value, "training learns the scales too", "--refine", "leave it out, or --qat")
    if gate is not None and keep_float:
        raise Error(
            Code.spec_bad_value, "a gate chooses the float layers itself", "--keep-float", "leave it out, or --gate"
        )
    options, keep = parse_options(option), tuple(keep_float or ())
    result = module.quantize(
        bundle,
        data,
        out,
        chosen,
        split=split,
        options=options,
        frames=frames,
        keep_float=keep,
        gate=gate,
        collection=collection,
        evaluate=evaluate,
        typing=typing,
        training=training,
        html=html,
        threads=threads,
        bar=bar,
    )
    _show("INT8 bundle", result, json)
    if gate is None and not training and (worst := max(result["error"].values())) > module.LARGE_ERROR:
        log().print(
            f"an output's NMSE is {worst:.2g}, which costs boxes: --gate 0.02 leaves the layers that suffer most in float"
        )
    return OK


@verb
def compare(
    a: Annotated[str, typer.Argument(help="The reference: folder NAME.imkd, or the name of a shipped bundle.")],
    b: Annotated[str, typer.Argument(help="Another form of the same model.")],
    data: Annotated[
        str | None, typer.Option(help="Also on frames of this recording, or synth; else the golden frame only.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of the source; the default is every frame.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Frames, spread over the source.")] = 8,
    tolerance: Annotated[
        float, typer.Option(min=0, callback=finite, help="Largest NMSE of an output; above it the exit code is 1.")
    ] = 0.1,
    engines: Annotated[
        str, typer.Option(help="What runs B; A runs on the first: onnxruntime,torch,tensorrt.")
    ] = "onnxruntime",
    option: Options = None,
    threads: Threads = 0,
    json: Json = False,
) -> int:
    """Compare two bundles of one model tensor by tensor and box by box, and name where they part."""
    module = _extra("imkd_edge.checks.compare", "quantize")
    options, named = parse_options(option), engines.split(",")
    result = module.compare(
        a,
        b,
        data,
        split=split,
        options=options,
        limit=limit,
        tolerance=tolerance,
        engines=named,
        threads=threads,
        track=bar("compare"),
    )
    if json:
        print_json(result)
    else:
        report.show_comparison(result)
    return OK if result["within"] else GATE_FAILED


@verb
def evaluate(
    bundle: Annotated[
        str, typer.Argument(help="Folder NAME.imkd, the name of a shipped bundle (tiny), or a checkpoint.pt of train.")
    ],
    data: Annotated[str, typer.Option(help="Folder of a labelled recording, or synth.")],
    split: Annotated[str, typer.Option(help="Which of the source's splits.")] = "val",
    option: Options = None,
    score: Annotated[
        float, typer.Option(min=SCORES[0], max=SCORES[1], callback=finite, help="Boxes below this score do not count.")
    ] = 0.01,
    per_range: Annotated[
        bool, typer.Option("--per-range", help="Also by distance: 0-20, 20-40, beyond 40 m (Astyx).")
    ] = False,
    per_block: Annotated[
        bool, typer.Option("--per-block", help="Also for each run of consecutive frames (Astyx).")
    ] = False,
    per_radar: Annotated[
        bool, typer.Option("--per-radar", help="Also by the radar returns in a box: none, any, thirds (Astyx).")
    ] = False,
    condition: Annotated[
        str,
        typer.Option(
            help="Do this to the sensors first: no_camera, no_radar, radar_half, radar_quarter, dark, bright, camera_1deg ..."
        ),
    ] = "none",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first frames of the split, for a quick look.")
    ] = None,
    threads: Threads = 0,
    device: Device = "auto",
    engine: EngineName = "auto",
    json: Json = False,
) -> int:
    """Measure a bundle on labelled frames: KITTI's protocol on Astyx, the official devkits on View-of-Delft, nuScenes and synth."""
    common: dict[str, Any] = {
        "options": parse_options(option),
        "score": score,
        "limit": limit,
        "per_range": per_range,
        "per_block": per_block,
        "per_radar": per_radar,
        "condition": condition,
    }
    if bundle.endswith(".pt"):
        ignored = {"--threads": threads or None, "--device": device, "--engine": engine}
        refuse(ignored, "a checkpoint runs in torch on the CPU", "leave it out")
        result = _extra("imkd_edge.training.evaluate", "train").evaluate_checkpoint(
            bundle, data, split, **common, track=bar("eval")
        )
    else:
        from imkd_edge.evaluation.run import evaluate_bundle

        result = evaluate_bundle(
            bundle, data, split, **common, threads=threads, device=device, engine=engine, track=bar("eval")
        )
    if json:
        print_json(result)
    else:
        report.show_numbers(
            f"{bundle} on {result['dataset']}, split {result['split']}, {result['frames']} frames", result["metrics"]
        )
    return OK


def _show(title: str, result: dict, json: bool) -> None:
    if json:
        print_json(result)
    else:
        report.show_numbers(title, result)
        log().print("done")
