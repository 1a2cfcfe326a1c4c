"""Checkpoints: one file per stage, written atomically, with everything that a run resumes from."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from imkd_edge.bundle.contract import Contract
from imkd_edge.errors import Code, Error
from imkd_edge.options import CHECKPOINT
from imkd_edge.training.config import Config, from_dict
from imkd_edge.training.models.student import Student
from imkd_edge.training.models.teacher import LabelEncoder, Teacher

LOG = "log.jsonl"  # beside it, one line per epoch
TEACHER, LABELS, STUDENT = "teacher", "labels", "student"  # stages; the first two are also folders of a run
KEYS = {"stage", "config", "seed", "epoch", "trained", "ema", "optimizer"}


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes a temporary file and renames it, so that a killed process leaves the previous checkpoint intact.

    Raises: Error write_failed.
    """
    temporary = path.with_suffix(".tmp")
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        fix = "free space, then continue with --resume (before the first checkpoint of a run: without it)"
        raise Error(Code.write_failed, f"{path.name} cannot be written: {error}", str(path), fix) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads the dictionary that Run.save wrote. Raises Error train_checkpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        fix = f"train first, or name a folder that holds a {CHECKPOINT} (a bundle has none)"
        raise Error(Code.train_checkpoint, "no checkpoint", str(path), fix) from error
    except Exception as error:  # unpickling damaged bytes raises many types
        raise Error(Code.train_checkpoint, f"unreadable checkpoint: {error}", str(path), "train again") from error
    missing = KEYS - set(state)
    if missing:
        raise Error(Code.train_checkpoint, f"checkpoint lacks {sorted(missing)}", str(path), "train again")
    return state


def load_student(path: Path) -> tuple[Student, Config, dict[str, Any]]:
    """Loads the averaged student of a checkpoint.

    Returns:
        The student in evaluation mode, its config, and the checkpoint.

    Raises:
        Error: train_checkpoint.
    """
    state = load_checkpoint(path)
    return (*student_of(state, str(path)), state)


def contract_of(state: dict[str, Any]) -> Contract | None:
    """What a student was trained on; None for a teacher and in checkpoints of old."""
    return Contract.from_json(state["contract"]) if state.get("contract") else None


def student_of(state: dict[str, Any], where: str) -> tuple[Student, Config]:
    """The averaged student of a checkpoint's state, in evaluation mode, and its config; see `load_student`."""
    if state["stage"] != STUDENT:
        problem = f"the checkpoint holds the stage '{state['stage']}', not '{STUDENT}'"
        raise Error(Code.train_checkpoint, problem, where, f"name the student's {CHECKPOINT}")
    settings = from_dict(state["config"], where)
    student = Student(settings.spec, replace(settings.model, pretrained=False, weights=""))
    try:
        student.load_state_dict(state["ema"])
    except RuntimeError as error:  # torch lists every layer that differs
        problem = f"the checkpoint comes from another version of the networks ({state['commit']})"
        raise Error(Code.train_checkpoint, problem, where, "train again, or check out that version") from error
    return student.eval(), settings


def load_teacher(folder: Path, settings: Config, labels: bool = True) -> tuple[Teacher, LabelEncoder | None]:
    """Loads the averaged teacher of a run and, with `labels`, its label encoder.

    Raises:
        Error: train_checkpoint where a stage is unfinished or was trained for another model.
    """
    teacher = _load_frozen(Teacher, folder / TEACHER / CHECKPOINT, TEACHER, settings)
    return teacher, _load_frozen(LabelEncoder, folder / LABELS / CHECKPOINT, LABELS, settings) if labels else None


def _load_frozen(network_type: Any, path: Path, stage: str, settings: Config) -> Any:
    state = load_checkpoint(path)
    trained = from_dict(state["config"], str(path))
    if state["stage"] != stage or _teacher_identity(trained) != _teacher_identity(settings):
        fix = "use the same grid, classes, split and [teacher], or train it again"
        raise Error(Code.train_checkpoint, f"no {stage} of this model", str(path), fix)
    if not state.get("finished", state["epoch"] >= trained.train.epochs):
        problem = f"{stage} has {state['epoch']} of {trained.train.epochs} epochs"
        raise Error(Code.train_checkpoint, problem, str(path), "finish its training with --resume")
    network = network_type(settings.spec, settings.teacher)
    network.load_state_dict(state["ema"])
    return network.eval()


def _teacher_identity(settings: Config) -> list[Any]:
    """Everything that teacher and label encoder depend on; cameras and history concern only the student."""
    spec, teacher, data = json.loads(settings.spec.to_json()), settings.teacher, settings.data
    radar = spec["radar"] if teacher.radar else spec["radar"]["cell"]
    return [spec["grid"], radar, spec["head"], teacher.channels, data.split, data.classes]


def code_version() -> str:
    """Commit of the training code, for the model card; "unknown" outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).resolve().parent, capture_output=True, text=True)
    except OSError:  # git is not installed
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 else "unknown"
