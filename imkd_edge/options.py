"""Options of the long verbs: each is a field with its type, default, help and limits, stated once.

The command line makes its options of the fields, and the function behind the verb takes the object:
`imkd-edge compare A B --limit 4` is `compare(A, B, options=CompareOptions(limit=4))`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from imkd_edge.spec import SCORES

# Files of a training in its folder: its last epoch, and the one that its validation chose.
CHECKPOINT, BEST = "checkpoint.pt", "best.pt"


@dataclass(frozen=True)
class Option:
    """How the command line shows a field."""

    help: str
    name: str = ""  # such as "--frame"; empty: the field's name
    min: float | None = None
    max: float | None = None
    metavar: str | None = None


def changed(options: Any) -> dict[str, Any]:
    """{"--name": value} of the fields that differ from their default."""
    declarations = declared(type(options))
    values = {field: getattr(options, field.name) for field in fields(options) if field.name in declarations}
    return {
        declarations[field.name].name or option_name(field.name): value
        for field, value in values.items()
        if value != field.default
    }


def declared(kind: type) -> dict[str, Option]:
    """Field -> how the command line shows it, of a dataclass of options."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: get_args(hint)[1] for name, hint in hints.items() if get_origin(hint) is Annotated}


def option_name(field: str) -> str:
    """A field's name on the command line."""
    return "--" + field.replace("_", "-")


@dataclass(frozen=True)
class RunOptions:
    """Where a Detector runs."""

    device: Annotated[str, Option("Where the networks run: auto, cpu or cuda.")] = "auto"
    engine: Annotated[
        str,
        Option("What runs the networks: auto, tensorrt, torch, onnxruntime, or onnxruntime-native, -cuda, -tensorrt."),
    ] = "auto"
    threads: Annotated[int, Option("Threads of our ops and of the engine; 0 is one per core.", min=0)] = 0
    trust: Annotated[
        str | None,
        Option(
            "Folder of trusted public keys; POLICY is warn (the default) or require, which refuses unsigned bundles.",
            metavar="[POLICY:]FOLDER",
        ),
    ] = None


@dataclass(frozen=True)
class InferOptions:
    """Which frames to run, and what to do with the results."""

    frame: Annotated[tuple[str, ...], Option("Name of a frame; repeatable.")] = ()
    frames: Annotated[str | None, Option("FIRST-LAST, or a text file with one name per line.")] = None
    split: Annotated[str | None, Option("Only the frames of this split; all is every frame.")] = None
    limit: Annotated[int | None, Option("Only the first frames.", min=1)] = None
    save: Annotated[bool, Option("Write OUT/FRAME/overview.png and result.json.")] = False
    out: Annotated[Path, Option("Folder for --save.")] = Path("runs/infer")
    debug: Annotated[bool, Option("With --save: also draw the fusion's two gates.")] = False
    score: Annotated[
        float | None,
        Option("Discard boxes below this score; the default is the bundle's.", min=SCORES[0], max=SCORES[1]),
    ] = None
    theme: Annotated[str, Option("Colours of the pictures: dark or light.")] = "dark"


@dataclass(frozen=True)
class LiveOptions:
    """What to replay, at which pace, and where the results go."""

    rig: Annotated[Path | None, Option("JSON file of the sensors, instead of the recording's.")] = None
    split: Annotated[str | None, Option("Only the frames of this split; all is every frame.")] = None
    frames: Annotated[str | None, Option("FIRST-LAST, or a text file with one name per line.")] = None
    limit: Annotated[int | None, Option("Only the first frames.", min=1)] = None
    rate: Annotated[
        str, Option("real: at the sensors' pace, skipping frames that come too soon; max: every frame, at once.")
    ] = "max"
    save: Annotated[
        tuple[str, ...], Option("Write the results to this .jsonl, .mcap, .mp4 or .rrd file; repeatable.")
    ] = ()
    tolerance: Annotated[float, Option("Largest time between a frame and an image that belongs to it, s.", min=0)] = (
        0.05
    )
    sensors: Annotated[bool, Option("With --save FILE.mcap: images, points and calibrations as well.")] = False
    no_track: Annotated[bool, Option("Boxes alone, without the objects' ids and smoothed velocities.")] = False
    view: Annotated[bool, Option("Show the recording in the viewer Rerun meanwhile.")] = False
    score: Annotated[
        float | None,
        Option("Discard boxes below this score; the default is the bundle's.", min=SCORES[0], max=SCORES[1]),
    ] = None


@dataclass(frozen=True)
class BenchOptions:
    """How many frames to time, and at which pace."""

    frames: Annotated[int, Option("Timed frames.", min=1, max=10_000_000)] = 6636
    warmup: Annotated[int, Option("Frames before the clock starts.", min=0)] = 20
    rate: Annotated[
        float | None, Option("Pace the frames as sensors do, and count missed deadlines.", metavar="HZ")
    ] = None


@dataclass(frozen=True)
class BuildOptions:
    """How to build TensorRT engines."""

    out: Annotated[Path | None, Option("Folder for the engines; the default is NAME.engines beside NAME.imkd.")] = None
    workspace_mb: Annotated[
        int | None,
        Option("Largest memory of one layer, MiB; the default is the device's.", "--workspace", min=1, metavar="MB"),
    ] = None
    dla: Annotated[
        int | None,
        Option(
            "DLA for the float layers that it can run; with TensorRT up to 10.7, or 11.4 on AGX Orin.",
            min=0,
            metavar="N",
        ),
    ] = None
    timing_cache: Annotated[
        Path | None, Option("Kernel times of earlier builds: read, then written.", metavar="FILE")
    ] = None
    precision: Annotated[
        str, Option("Type of what is not INT8: float16, or float32, which is slower; softmax is always float32.")
    ] = "float16"
    io: Annotated[
        str,
        Option(
            "Types of the engines' tensors: auto is float16 where a part computes in it, with the context's channels "
            "last; onnx is as in the ONNX part."
        ),
    ] = "auto"
    builder: Annotated[
        str, Option("The Python package: tensorrt, or tensorrt_rtx, which also builds without a GPU.")
    ] = "tensorrt"


@dataclass(frozen=True)
class TrainOptions:
    """One training, besides its config."""

    data: Annotated[str | None, Option("Folder or name of the source; the default is the config's.")] = None
    split: Annotated[str | None, Option("Train on this split, or all; the default is the config's.")] = None
    unlabelled: Annotated[
        str | None,
        Option("Folder or name of a source whose frames teach by the distillation terms, without labels."),
    ] = None
    out: Annotated[Path, Option("Folder for checkpoint.pt and log.jsonl.")] = Path("runs/train")
    seed: Annotated[int, Option("Seed of the weights and of every random draw.", min=0, max=2**32 - 1)] = 0
    start: Annotated[
        str | None,
        Option(
            "Start from the weights, as far as they fit, of a bundle, a checkpoint.pt or a run's folder.",
            "--from",
            metavar="BUNDLE|CHECKPOINT",
        ),
    ] = None
    resume: Annotated[
        bool, Option("Continue from OUT/checkpoint.pt; with more --epochs also a run that is finished.")
    ] = False
    epochs: Annotated[int | None, Option("Epochs of the student, instead of the config's.", min=1)] = None
    changes: Annotated[
        tuple[str, ...],
        Option(
            "Another value for a key of the config, e.g. train.rate=1e-3; repeatable.", "--set", metavar="KEY=VALUE"
        ),
    ] = ()
    limit: Annotated[int | None, Option("Only the first frames of the split.", min=1)] = None
    threads: Annotated[int, Option("Threads of torch and of our ops; 0 is one per core.", min=0)] = 0
    teacher: Annotated[
        Path | None,
        Option("Folder of an earlier run whose LiDAR teacher and label encoder are used again.", metavar="RUN"),
    ] = None
    cache: Annotated[
        Path | None, Option("Folder for decoded samples and frozen features; several runs may share it.")
    ] = None
    device: Annotated[str, Option("Where to train: auto (CUDA where there is one), cpu or cuda.")] = "auto"


@dataclass(frozen=True)
class LabelOptions:
    """Which frames a network labels, and which objects it writes."""

    split: Annotated[str | None, Option("Only the frames of this split; all is every frame.")] = None
    frames: Annotated[str | None, Option("FIRST-LAST, or a text file with one name per line.")] = None
    limit: Annotated[int | None, Option("Only the first frames.", min=1)] = None
    score: Annotated[float, Option("Least score of an object that is written.", min=0.0, max=1.0)] = 0.3


@dataclass(frozen=True)
class ConvertOptions:
    """Which frames of a source become a drive folder."""

    split: Annotated[str | None, Option("Only the frames of this split; all is every frame.")] = None
    frames: Annotated[str | None, Option("FIRST-LAST, or a text file with one name per line.")] = None
    limit: Annotated[int | None, Option("Only the first frames.", min=1)] = None


@dataclass(frozen=True)
class CheckOptions:
    """How much of a source to check, and the page on it."""

    limit: Annotated[
        int, Option("Frames whose sensor files are read, evenly spaced; a drive folder's lines are all read.", min=1)
    ] = 500
    html: Annotated[Path | None, Option("Write a page with tables, and pictures of a few frames.")] = None


@dataclass(frozen=True)
class InitOptions:
    """The config of a training that fits a source."""

    size: Annotated[str, Option("Size of the networks: tiny, lite, r18 or r50.")] = "tiny"
    split: Annotated[
        str | None, Option("Split to train on; the default is train where the source has it, else all.")
    ] = None
    limit: Annotated[int, Option("Frames whose sensor files are read, evenly spaced.", min=1)] = 200
    past: Annotated[
        int | None,
        Option(
            "Past frames that the model sees, 0 trains fastest; the default is 3 where the ego motion is known.",
            min=0,
            max=16,
        ),
    ] = None


@dataclass(frozen=True)
class QuantizeOptions:
    """Post-training quantization, and training of the quantized model."""

    method: Annotated[
        str,
        Option(
            "Calibrator: fisher (by the outputs' sensitivity; needs PyTorch), riac (the same, more weight where the "
            "radar sees), percentile, mse or max."
        ),
    ] = "fisher"
    radar_share: Annotated[
        float | None,
        Option(
            "With riac: share of the radar's map, 0 to 1; the default is the largest that costs 5 % of loss at most."
        ),
    ] = None
    no_equalise: Annotated[bool, Option("With fisher and riac: do not scale channels inside the parts.")] = False
    percentile: Annotated[float, Option("Share of the values within the range, %, for --method percentile.")] = 99.99
    bits: Annotated[
        int, Option("Bits of weights and activations; fewer than 8 are for a study and are stored as int8.")
    ] = 8
    weight_bits: Annotated[int | None, Option("Bits of the camera part's weights; the default is that of --bits.")] = (
        None
    )
    frames: Annotated[int, Option("Calibration frames, chosen by their radar.", min=16)] = 128
    split: Annotated[
        str | None, Option("Split to calibrate on, or all; the default is train where the source has it.")
    ] = None
    no_correct: Annotated[bool, Option("Round weights to the nearest, and leave mean errors.")] = False
    keep_float: Annotated[
        tuple[str, ...], Option("Layer that stays float: NAME, camera/NAME or bev/NAME; repeatable.")
    ] = ()
    gate: Annotated[
        float,
        Option("Largest loss on other frames; above it layers go back to float; 1e6 accepts any.", min=0),
    ] = 0.25
    collection: Annotated[
        Path | None, Option("File of the histograms, for an interrupted pass to continue; beside OUT by default.")
    ] = None
    evaluate: Annotated[
        str | None, Option("Measure the float and the INT8 bundle on this split of the source, for the model card.")
    ] = None
    qat: Annotated[
        bool, Option("Then train weights and scales to reproduce the float bundle's outputs; no label is read.")
    ] = False
    refine: Annotated[bool, Option("As --qat, but train the scales only.")] = False
    steps: Annotated[int, Option("Steps of --qat and --refine, for each part, of two frames each.", min=1)] = 150
    seed: Annotated[int, Option("Seed of the order of frames in --qat and --refine.", min=0, max=2**32 - 1)] = 0
    html: Annotated[Path | None, Option("Write a page on ranges, weights and layers, and its data as JSON.")] = None


@dataclass(frozen=True)
class CompareOptions:
    """Which frames to compare two bundles on, and how close they must be."""

    split: Annotated[str | None, Option("Split of the source; the default is every frame.")] = None
    limit: Annotated[int, Option("Frames, spread over the source; those of the calibration are left out.", min=1)] = 64
    gate: Annotated[
        float,
        Option(
            "Largest loss on --data (error of the outputs per expected object); above it the exit code is 1.", min=0
        ),
    ] = 0.25
    tolerance: Annotated[
        float,
        Option(
            "NMSE above which a tensor counts as different; without --data the exit code is 1 where an output does.",
            min=0,
        ),
    ] = 0.1
    engines: Annotated[
        str, Option("Engines that run B, such as onnxruntime,torch,tensorrt; A runs on the first of them.")
    ] = "onnxruntime"


@dataclass(frozen=True)
class EvalOptions:
    """Which frames to evaluate, under which condition, and what to report."""

    split: Annotated[str, Option("Split of the source; all is every frame.")] = "val"
    score: Annotated[float, Option("Boxes below this score do not count.", min=SCORES[0], max=SCORES[1])] = 0.01
    protocol: Annotated[
        str, Option("classes (AP of any classes), kitti, nuscenes, or auto: the data set's own, else classes.")
    ] = "auto"
    per_range: Annotated[bool, Option("Also by distance: 0-20, 20-40, beyond 40 m (protocols classes, kitti).")] = False
    per_block: Annotated[bool, Option("Also for each run of consecutive frames (Astyx).")] = False
    per_radar: Annotated[bool, Option("Also by the radar returns in a box: none, any, thirds (Astyx).")] = False
    condition: Annotated[
        str,
        Option(
            "Fault of the sensors to evaluate under, such as no_camera, no_radar, radar_half, dark or camera_1deg; "
            "docs/guide/evaluation.md lists all."
        ),
    ] = "none"
    limit: Annotated[int | None, Option("Only the first frames of the split.", min=1)] = None
    track: Annotated[bool, Option("Track the objects, and measure nuScenes' AMOTA instead (synth); slow.")] = False
    resamples: int = 0  # draws of frames for intervals, KITTI's protocol only; not on the command line
