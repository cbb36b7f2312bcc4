"""`resprout run` as a command of its own, for tests: started, read while it runs, and its run folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from resprout import artifacts, datasets
from resprout.types import LabelledImages, Teacher

ROOT = Path(__file__).parents[2]
ARTIFACTS = ("teacher", "statistics", "dreams", "student", "repaired", "model", "evaluation")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "run", *map(str, arguments)]


def _heed_interrupts() -> None:
    # a shell starts what it runs in the background with SIGINT ignored, and children inherit that
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def running(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a process group of its own, whose output can be read line by line."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def run(*arguments: str | Path) -> tuple[int, str]:
    with running(*arguments) as process:
        output, _ = process.communicate()
    return process.returncode, output


def read_until(process: subprocess.Popen[str], stage: str, share: float, unit: str = "") -> list[str]:
    """Read the output until `stage` has reported that `share` of its `unit` (any) is done, but not all."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        match = re.match(rf"{stage} +(\d+)/(\d+) {unit}", line)
        if match and share <= int(match[1]) / int(match[2]) < 1:
            return lines
    pytest.fail(f"{stage} was not seen at work:\n{''.join(lines)}")


def run_folder(runs: Path) -> Path:
    (folder,) = runs.iterdir()
    return folder


def digests(runs: Path) -> dict[str, str]:
    return {name: artifacts.digest_of(run_folder(runs) / name) for name in ARTIFACTS}


def contents(runs: Path) -> dict[str, dict[str, Any]]:
    """The sha256 of every file of each artifact, but for what differs between two ways to the same result.

    A checkpoint that work went on from is named in the manifest, so that metrics.json counts some bytes more. And
    summary.json says where the teacher was fetched.
    """
    folder = run_folder(runs)
    found: dict[str, dict[str, Any]] = {name: dict(artifacts.read_manifest(folder / name).files) for name in ARTIFACTS}
    figures = json.loads((folder / "evaluation" / "metrics.json").read_text())
    summary = json.loads((folder / "evaluation" / "summary.json").read_text())
    found["evaluation"]["summary.json"] = {**summary, "teacher_fetched_from": ""}
    found["evaluation"]["metrics.json"] = {
        name: value for name, value in figures.items() if not name.endswith("size_bytes")
    }
    return found


def write_recipe(folder: Path, teacher: Teacher, images: tuple[Tensor, Tensor]) -> Path:
    artifacts.save_teacher(teacher, folder / "teacher")
    pixels = (teacher.info.input.to_pixels(images[0][:64]) * 255).round().to(torch.uint8)
    datasets.save_labelled(
        LabelledImages(pixels, images[1][:64], teacher.info.class_names), folder / "data.safetensors"
    )
    fields = {
        "teacher": {"source": str(folder / "teacher")},
        # long enough that a signal sent on reading a line always arrives in the middle
        "synthesis": {
            "method": "deep_inversion",
            "num_images": 48,
            "num_held_out": 16,
            "group_size": 16,
            "iterations": 80,
        },
        "pruning": {"method": "global_magnitude", "sparsity": 0.6},
        "recovery": {"method": "distillation", "epochs": 24, "batch_size": 16},
        "evaluation": {"data": str(folder / "data.safetensors")},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path
