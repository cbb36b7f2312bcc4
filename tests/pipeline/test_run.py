"""`resprout run` for real: the command, its subprocesses, its folder, its errors, its deaths."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from resprout import artifacts, datasets
from resprout.types import LabelledImages, Teacher

ROOT = Path(__file__).parents[2]
ARTIFACTS = ("teacher", "statistics", "dreams", "student", "repaired", "model", "evaluation")
pytestmark = pytest.mark.slow


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


@pytest.fixture
def recipe(tmp_path: Path, tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor]) -> Path:
    return write_recipe(tmp_path, tiny_teacher, tiny_images)


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


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory, _trained: Teacher, _structured_images: tuple[Tensor, Tensor]
) -> tuple[Path, Path, str]:
    """(recipe, folder of runs, output) of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    path = write_recipe(folder, _trained, _structured_images)
    exit_code, output = run(path, "--runs", folder / "runs")
    assert exit_code == 0, output
    return path, folder / "runs", output


def test_a_run_leaves_everything_in_its_place_and_nothing_else(unbroken: tuple[Path, Path, str]):
    folder = run_folder(unbroken[1])

    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {*ARTIFACTS, "recipe.yaml", "report.html", "metrics.json", "log.txt", "storage", "publication.json"}
    assert not (folder / ".work").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["recovered.sparsity"] == pytest.approx(0.6, abs=1e-3)
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["recovery"]["temperature"] == 4.0


def test_a_run_says_what_happens_and_ends_with_the_verdict(unbroken: tuple[Path, Path, str]):
    _, runs, output = unbroken

    stages = [line.split()[0] for line in output.splitlines() if re.search(r" \d+ s$", line)]
    assert stages[0] == "teacher"
    assert set(stages[1:-3]) == {"statistics", "dreams", "pruning"}  # pruning waits for the teacher alone
    assert stages.index("dreams") > stages.index("statistics")
    assert stages[-3:] == ["recovery", "evaluation", "publishing"]
    assert re.search(r"^resprout \S+   recipe tiny   seed 0   \d+ CPU cores?, \w+   ", output)
    assert re.search(r"^recovered +\d+\.\d %   \d+\.\d %$", output, flags=re.MULTILINE)
    assert "no training image was read" in output
    assert f"digest  {digests(runs)['model']}" in output
    assert "KFP" not in output
    assert "Warning" not in output


def test_killed_in_synthesis_and_in_recovery_it_ends_with_the_same_bytes(
    unbroken: tuple[Path, Path, str], tmp_path: Path
):
    recipe, runs, _ = unbroken
    again = (recipe, "--runs", tmp_path)

    with running(*again) as process:
        read_until(process, "dreams", 0.3)  # the first of four groups is done
        os.killpg(process.pid, signal.SIGKILL)
    kept = list((run_folder(tmp_path) / "checkpoints").iterdir())
    assert process.returncode == -signal.SIGKILL
    assert 1 <= len(kept) < 4

    with running(*again) as process:
        resumed = "".join(read_until(process, "recovery", 0.3, "epochs"))
        os.killpg(process.pid, signal.SIGKILL)
    assert f"going on from {len(kept)} group" in resumed
    assert process.returncode == -signal.SIGKILL
    assert not (run_folder(tmp_path) / "model").exists()

    exit_code, output = run(*again)
    assert exit_code == 0, output
    assert "going on from 4 groups of dreams and recovery's last finished epoch" in output
    first_seen = re.search(r"^recovery +(\d+)/24 epochs", output, flags=re.MULTILINE)
    assert first_seen is None or int(first_seen[1]) > 7
    assert digests(tmp_path) == digests(runs)
    assert not (run_folder(tmp_path) / "checkpoints").exists()


def test_interrupted_it_stops_its_tasks_and_says_how_to_go_on(recipe: Path, tmp_path: Path):
    with running(recipe, "--runs", tmp_path / "runs") as process:
        read_until(process, "dreams", 0.3)
        process.send_signal(signal.SIGINT)  # to the command alone; Ctrl-C would reach its tasks too
        output, _ = process.communicate()

    assert process.returncode == 130
    assert re.search(r"kept: \d groups? of dreams, in ", output)
    assert f"now: resprout run {recipe} --runs {tmp_path / 'runs'}   goes on from there" in output
    assert "Traceback" not in output
    assert no_task_lives_on(run_folder(tmp_path / "runs"))


def test_terminated_before_anything_was_done_it_says_so(recipe: Path, tmp_path: Path):
    with running(recipe, "--runs", tmp_path / "runs") as process:
        assert process.stdout is not None
        assert next(line for line in process.stdout if line.startswith("teacher"))
        process.terminate()
        output, _ = process.communicate()

    assert process.returncode == 130
    assert "kept: nothing yet" in output
    assert no_task_lives_on(run_folder(tmp_path / "runs"))


def no_task_lives_on(folder: Path) -> bool:
    with (folder / ".lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # every task of a run inherits its lock
        except BlockingIOError:
            return False
    return True


def test_without_data_and_with_the_student_shown_to_synthesis(recipe: Path, tmp_path: Path):
    fields = yaml.safe_load(recipe.read_text())
    del fields["evaluation"]
    fields["synthesis"] |= {"student_weight": 1.0, "iterations": 5}
    fields["recovery"]["epochs"] = 2
    recipe.write_text(yaml.safe_dump(fields))

    exit_code, output = run(recipe, "--output", tmp_path / "out")

    assert exit_code == 0, output
    inputs = artifacts.read_manifest(tmp_path / "out" / "dreams").inputs
    assert [record["name"] for record in inputs] == ["teacher", "statistics", "student"]
    assert "top-1" not in output
    assert "agrees with the teacher" in output


@pytest.mark.parametrize("flags", [(), ("-v",)], ids=["quiet", "verbose"])
def test_a_stage_that_refuses_is_told_in_three_lines(
    tmp_path: Path, tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor], flags: Sequence[str]
):
    for module in tiny_teacher.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    recipe = write_recipe(tmp_path, tiny_teacher, tiny_images)

    exit_code, output = run(recipe, "--runs", tmp_path / "runs", *flags)

    assert exit_code == 1
    *before, what, why, now = output.rstrip().splitlines()
    assert what.startswith("error: cifar_resnet8")
    assert "never trained" in what
    assert why.startswith("  why: ")
    assert now.startswith("  now: ")
    assert any("Traceback" in line for line in before) == bool(flags)


def test_a_test_set_that_does_not_fit_is_refused_before_the_work(recipe: Path, tmp_path: Path, tiny_teacher: Teacher):
    names = ("cat", "dog", "cow", "hen")
    images = LabelledImages(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.arange(4), names)
    datasets.save_labelled(replace(images), tmp_path / "data.safetensors")

    exit_code, output = run(recipe, "--runs", tmp_path / "runs")

    assert exit_code == 1
    assert "error: " in output
    assert "'cat'" in output
    assert "statistics " not in output


def test_no_secret_of_a_source_is_written_or_shown(tmp_path: Path):
    path = tmp_path / "secret.yaml"
    source = "https://someone:hunter2@127.0.0.1:1/resnet.safetensors?signature=c0ffee"
    teacher = {"source": source, "sha256": "0" * 64, "architecture": "resnet18", "input": {"shape": [3, 32, 32]}}
    path.write_text(yaml.safe_dump({"teacher": teacher}))

    code, output = run(path, "--runs", tmp_path / "runs", "-v")

    assert code == 1
    assert "https://127.0.0.1:1/resnet.safetensors" in output
    written = [file.read_bytes() for file in run_folder(tmp_path / "runs").rglob("*") if file.is_file()]
    assert len(written) >= 2
    assert not any(secret in text for text in (output.encode(), *written) for secret in (b"hunter2", b"c0ffee"))
