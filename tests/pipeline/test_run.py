"""`resprout run` for real: the command, its subprocesses, its folder, its errors, its deaths."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from torch import Tensor

from pipeline import embedded_storage, runners
from pipeline.embedded_storage import Server
from pipeline.runners import RunFolder
from pipeline.watch import PlainScreen
from resprout import artifacts, datasets
from resprout import recipe as recipe_module
from resprout.storage import ObjectAddress, Storage
from resprout.types import LabelledImages, Teacher
from tests.pipeline.running import ARTIFACTS, digests, read_until, run, run_folder, running, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path: Path, tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor]) -> Path:
    return write_recipe(tmp_path, tiny_teacher, tiny_images)


def test_a_run_leaves_everything_in_its_place_and_nothing_else(unbroken: tuple[Path, Path, str]):
    folder = run_folder(unbroken[1])

    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {*ARTIFACTS, "recipe.yaml", "report.html", "metrics.json", "log.txt", "storage", "publication.json"}
    assert not (folder / ".work").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["recovered.sparsity"] == pytest.approx(0.6, abs=1e-3)
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["recovery"]["temperature"] == 4.0


def test_the_teacher_and_the_result_go_through_the_runs_own_object_store(unbroken: tuple[Path, Path, str]):
    folder = run_folder(unbroken[1])

    publication = json.loads((folder / "publication.json").read_text())
    stored = {name: digest for name, digest in publication["files"].items() if name.startswith("model/")}
    assert publication["address"].startswith("s3://resprout/models/tiny/")
    assert stored == {f"model/{path.name}": artifacts.sha256_of(path) for path in (folder / "model").iterdir()}
    assert re.search(r"^teacher: progress teacher (\d+)/\1 bytes", (folder / "log.txt").read_text(), re.MULTILINE)
    assert artifacts.load_teacher(folder / "teacher").source == "tests", "where it was before"


@pytest.mark.parametrize(
    "change",
    ["teacher.source=s3://b/t", "evaluation.data=s3://b/d", "publishing.to=s3://b", "placement.checkpoints=s3://b"],
)
def test_storage_that_is_named_must_be_configured(recipe: Path, tmp_path: Path, change: str):
    exit_code, output = run(recipe, "--runs", tmp_path / "runs", "--set", change)

    assert exit_code == 1
    assert "error: no object storage is configured" in output
    assert not (tmp_path / "runs").exists()


def test_a_run_says_what_happens_and_ends_with_the_verdict(unbroken: tuple[Path, Path, str]):
    _, runs, output = unbroken

    stages = [line.split()[0] for line in output.splitlines() if re.search(r" \d+ s$", line)]
    assert stages[0] == "teacher"
    assert set(stages[1:-3]) == {"statistics", "test", "dreams", "pruning"}  # pruning waits for the teacher alone
    assert stages.index("dreams") > max(stages.index("statistics"), stages.index("test"))
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


def test_four_shards_give_the_same_bytes_as_one_and_are_told(unbroken: tuple[Path, Path, str], tmp_path: Path):
    recipe, runs, _ = unbroken

    exit_code, output = run(recipe, "--runs", tmp_path, "--set", "placement.num_shards=4")

    assert exit_code == 0, output
    assert digests(tmp_path) == digests(runs)
    assert run_folder(tmp_path).name == run_folder(runs).name, "where stages run is no part of what a run is"
    assert re.findall(r"^dreams +shard (\d) of 4 ", output, flags=re.MULTILINE) == ["1", "2", "3", "4"]
    assert re.search(r"^dreams +48 images to train on, 16 held out, of 4 shards", output, flags=re.MULTILINE)


def test_a_shard_that_dies_is_tried_again_alone(unbroken: tuple[Path, Path, str], tmp_path: Path):
    recipe, runs, _ = unbroken

    with running(recipe, "--runs", tmp_path, "--set", "placement.num_shards=4") as process:
        assert process.stdout is not None
        before = []
        for line in process.stdout:
            before.append(line)
            if len(before) > 1 and re.match(r"dreams +shard 2 of 4 ", before[-2]):
                break  # the third is at work
        (shard,) = children(process.pid, "synthesize")
        os.kill(shard, signal.SIGKILL)
        after, _ = process.communicate()

    assert process.returncode == 0, after
    assert "dreams       was killed by signal 9" in after
    assert re.findall(r"^dreams +shard (\d) of 4 ", "".join(before), flags=re.MULTILINE) == ["1", "2"]
    assert re.findall(r"^dreams +shard (\d) of 4 ", after, flags=re.MULTILINE) == ["3", "4"]
    assert digests(tmp_path) == digests(runs)


def children(parent: int, component: str) -> list[int]:
    """The processes that `parent` has started and that run a component."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (folder / "status").read_text(), (folder / "cmdline").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if f"PPid:\t{parent}\n" in status and f"{component}_component.py" in command:
            found.append(int(folder.name))
    return found


def test_more_shards_than_groups_are_refused_before_synthesis(recipe: Path, tmp_path: Path):
    exit_code, output = run(recipe, "--runs", tmp_path / "runs", "--set", "placement.num_shards=5")

    assert exit_code == 1
    assert "error: placement.num_shards: 5 shards cannot share 4 groups of dreams" in output
    assert "  now: use 1 to 4 shards" in output


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


def test_in_rounds_it_is_pruned_with_the_dreams_and_layers_are_scanned_beside_it(recipe: Path, tmp_path: Path):
    fields = yaml.safe_load(recipe.read_text())
    fields["pruning"] = {"method": "lamp", "sparsity": 0.8, "rounds": 2, "round_epochs": 2}
    fields["evaluation"]["scan_layers"] = True
    recipe.write_text(yaml.safe_dump(fields))

    exit_code, output = run(recipe, "--output", tmp_path / "out")

    assert exit_code == 0, output
    inputs = artifacts.read_manifest(tmp_path / "out" / "student").inputs
    assert [record["name"] for record in inputs] == ["teacher", "dreams"]
    student, model = (artifacts.load_student(tmp_path / "out" / name) for name in ("student", "model"))
    assert student.mask.sparsity == pytest.approx(0.8, abs=1e-3)
    assert all(torch.equal(kept, model.mask.keep[name]) for name, kept in student.mask.keep.items())
    assert re.search(r"^pruning +80.0 % of [\d,]+ weights, lamp, rounds: 2", output, re.MULTILINE), output
    assert artifacts.load_sensitivity(tmp_path / "out" / "sensitivity").layers
    assert re.search(r"^sensitivity +10 layers; \S+ can spare least", output, re.MULTILINE), output


def test_real_images_take_the_place_of_dreams_and_everybody_is_told(
    recipe: Path, tmp_path: Path, tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor]
):
    pixels = (tiny_teacher.info.input.to_pixels(tiny_images[0][64:160]) * 255).round().to(torch.uint8)
    labelled = LabelledImages(pixels, tiny_images[1][64:160], tiny_teacher.info.class_names)
    datasets.save_labelled(labelled, tmp_path / "train.safetensors")
    fields = yaml.safe_load(recipe.read_text())
    fields["synthesis"] = {
        "method": "images",
        "data": str(tmp_path / "train.safetensors"),
        "num_images": 64,
        "num_held_out": 16,
    }
    fields["pruning"] = {"method": "teacher_guided", "sparsity": 0.6}
    fields["recovery"] |= {"epochs": 2, "target_weight": 1.0}
    recipe.write_text(yaml.safe_dump(fields))

    exit_code, output = run(recipe, "--output", tmp_path / "out", "--set", "placement.num_shards=3")

    assert exit_code == 0, output
    assert re.search(r"^images +64 real images to train on, 16 held out: nothing is synthesized", output, re.MULTILINE)
    assert not re.search(r"^dreams ", output, re.MULTILINE)
    assert re.search(r"^pruning +60.0 % of [\d,]+ weights, teacher_guided", output, re.MULTILINE), output
    assert "64 labelled images, 16 held-out images" in output
    assert "real images were learnt from, not dreams" in output
    assert "no training image" not in output
    images = artifacts.load_dreams(tmp_path / "out" / "dreams")
    assert images.source == str(tmp_path / "train.safetensors")
    assert images.targets.bincount().tolist() == [20] * 4
    assert "not data-free" in (tmp_path / "out" / "report.html").read_text()


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


@pytest.mark.usefixtures("storage_configured")
def test_a_result_that_cannot_be_published_is_kept(recipe: Path, tmp_path: Path, server: Server):
    prefix = ObjectAddress("resprout", f"tests/{tmp_path.name}")
    claim = json.dumps({"files": {"model/manifest.json": "another's"}}).encode()
    assert Storage(server.settings).claim(prefix / "tiny" / "1" / "claim.json", claim)
    quick = ("--set", "synthesis.iterations=2", "--set", "recovery.epochs=1")
    where = ("--set", f"publishing.to={prefix}", "--set", "publishing.version='1'")

    exit_code, output = run(recipe, "--output", tmp_path / "out", *quick, *where)

    assert exit_code == 1
    assert "tiny/1 is being published with other files" in output
    assert output.rstrip().endswith(f"kept: the result, which is in {tmp_path / 'out'}")
    assert artifacts.load_student(tmp_path / "out" / "model").mask.sparsity == pytest.approx(0.6, abs=1e-3)
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "out" / "publication.json").exists()


def test_a_run_goes_on_where_its_own_object_store_does_not_come_up(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embedded_storage, "_program", lambda: "/bin/false")
    written = io.StringIO()
    loaded = recipe_module.load(recipe)

    with runners._stored(loaded, RunFolder(tmp_path), PlainScreen(Console(file=written))) as (as_run, settings):
        assert as_run == loaded
        assert settings is None
    assert "going on without the run's own: the embedded object store did not come up" in written.getvalue()


def test_a_test_set_that_does_not_fit_is_refused_before_the_work(recipe: Path, tmp_path: Path, tiny_teacher: Teacher):
    names = ("cat", "dog", "cow", "hen")
    images = LabelledImages(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.arange(4), names)
    datasets.save_labelled(replace(images), tmp_path / "data.safetensors")

    exit_code, output = run(recipe, "--runs", tmp_path / "runs")

    assert exit_code == 1
    assert "error: " in output
    assert "'cat'" in output
    assert "dreams " not in output


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
