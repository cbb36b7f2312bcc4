"""`resprout run` for real: the command, its subprocesses, its folder, its errors, its deaths."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from torch import Tensor

from pipeline import embedded_program, runners
from pipeline.run_folder import RESULTS, RunFolder
from pipeline.watch import PlainScreen
from resprout import artifacts, sources
from resprout import recipe as recipe_module
from resprout.errors import ArtifactError
from resprout.keys import KEY_FILE
from resprout.storage import ObjectAddress, Storage, folders
from resprout.types import Teacher
from tests.pipeline.running import ARTIFACTS, contents, digests, read_until, run, run_folder, running, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path: Path, tiny_teacher: Teacher, tiny_images: tuple[Tensor, Tensor]) -> Path:
    return write_recipe(tmp_path, tiny_teacher, tiny_images)


def test_a_run_leaves_everything_in_its_place_and_nothing_else(unbroken: tuple[Path, Path, str]):
    folder = run_folder(unbroken[1])

    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {*ARTIFACTS, *RESULTS}
    assert {
        *ARTIFACTS,
        "statement.json",
        "report.html",
        "metrics.json",
        "log.txt",
        "publication.json",
    } < names
    assert not (folder / ".work").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["recovered.sparsity"] == pytest.approx(0.6, abs=1e-3)
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["recovery"]["temperature"] == 16.0


def test_the_teacher_and_the_result_go_through_the_runs_own_object_store(unbroken: tuple[Path, Path, str]):
    folder = run_folder(unbroken[1])

    publication = json.loads((folder / "publication.json").read_text())
    stored = {name: digest for name, digest in publication["files"].items() if name.startswith("model/")}
    assert publication["address"].startswith("s3://resprout/models/tiny/")
    assert stored == {f"model/{path.name}": artifacts.sha256_of(path) for path in (folder / "model").iterdir()}
    assert re.search(r"^teacher: progress teacher (\d+)/\1 bytes", (folder / "log.txt").read_text(), re.MULTILINE)
    assert artifacts.load_teacher(folder / "teacher").source == "claimed by the folder: tests"


def test_a_run_says_what_happens_and_ends_with_the_verdict(unbroken: tuple[Path, Path, str]):
    _, runs, output = unbroken

    stages = [line.split()[0] for line in output.splitlines() if re.search(r" \d+ s$", line)]
    # what may be refused is, before the work: the test set too
    before = ["teacher", "statistics", "test"]
    assert stages == [*before, "dreams", "pruning", "recovery", "evaluation", "publishing"]
    assert re.search(r"^resprout \S+   recipe tiny   seed 0   \d+ CPU cores?, \w+   ", output)
    assert re.search(r"^recovered +\d+\.\d %   \d+\.\d %$", output, flags=re.MULTILINE)
    assert "training was given dreams only" in output
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
    kept = list((run_folder(tmp_path) / "checkpoints").glob("*.checkpoint"))
    key = (run_folder(tmp_path) / "checkpoints" / KEY_FILE).read_bytes()
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
    assert contents(tmp_path) == contents(runs)
    for name in ("dreams", "model"):
        manifests = [artifacts.read_manifest(run_folder(folder) / name) for folder in (runs, tmp_path)]
        assert [bool(manifest.resumed) for manifest in manifests] == [False, True]
    assert key.hex() not in (run_folder(tmp_path) / "log.txt").read_text()
    assert not (run_folder(tmp_path) / "checkpoints").exists()


@dataclass(frozen=True)
class Sharded:
    """A run in four shards whose third was killed once: what it said before and after that, and its folder of runs."""

    exit_code: int
    before: str
    after: str
    runs: Path


@pytest.fixture(scope="module")
def sharded(unbroken: tuple[Path, Path, str], tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    runs = tmp_path_factory.mktemp("sharded")
    with running(unbroken[0], "--runs", runs, "--set", "placement.num_shards=4") as process:
        assert process.stdout is not None
        before: list[str] = []
        for line in process.stdout:
            before.append(line)
            if len(before) > 1 and re.match(r"dreams +shard 2 of 4 ", before[-2]):
                break  # the third is at work
        (shard,) = children(process.pid, "synthesize")
        os.kill(shard, signal.SIGKILL)
        after, _ = process.communicate()
    return Sharded(process.returncode, "".join(before), after, runs)


def test_four_shards_give_the_same_bytes_as_one_and_are_told(unbroken: tuple[Path, Path, str], sharded: Sharded):
    output = sharded.before + sharded.after

    assert sharded.exit_code == 0, output
    assert contents(sharded.runs) == contents(unbroken[1])
    assert run_folder(sharded.runs).name == run_folder(unbroken[1]).name, "where stages run is no part of what a run is"
    assert re.findall(r"^dreams +shard (\d) of 4 ", output, flags=re.MULTILINE) == ["1", "2", "3", "4"]
    assert re.search(r"^dreams +48 images to train on, 16 held out  ", output, flags=re.MULTILINE)


def test_a_shard_that_dies_is_tried_again_alone(unbroken: tuple[Path, Path, str], sharded: Sharded):
    assert sharded.exit_code == 0, sharded.after
    assert "dreams       was killed by signal 9" in sharded.after
    assert re.findall(r"^dreams +shard (\d) of 4 ", sharded.before, flags=re.MULTILINE) == ["1", "2"]
    assert re.findall(r"^dreams +shard (\d) of 4 ", sharded.after, flags=re.MULTILINE) == ["3", "4"]
    assert contents(sharded.runs) == contents(unbroken[1])


def children(parent: int, component: str) -> list[int]:
    """The processes that `parent` has started and that run a component."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (folder / "status").read_text(), (folder / "cmdline").read_text()
        except OSError:  # it has ended meanwhile
            continue
        if f"PPid:\t{parent}\n" in status and f"_executor.py\0{component}\0" in command:
            found.append(int(folder.name))
    return found


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


def test_a_run_goes_on_where_its_own_object_store_does_not_come_up(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embedded_program, "checked", lambda: Path("/bin/false"))
    written = io.StringIO()
    loaded = recipe_module.load(recipe)

    with runners._stored(loaded, RunFolder(tmp_path), PlainScreen(Console(file=written))) as (as_run, settings):
        named = loaded.teacher.model_copy(update={"sha256": artifacts.digest_of(Path(loaded.teacher.source))})
        assert as_run == loaded.model_copy(update={"teacher": named})
        assert settings is None
    assert "going on without the run's own: the embedded object store did not come up" in written.getvalue()


def test_a_teacher_that_was_replaced_in_the_runs_own_store_is_refused(
    recipe: Path, tmp_path: Path, tiny_teacher: Teacher
):
    loaded = recipe_module.load(recipe)
    owned = replace(tiny_teacher.info, class_names=("OWNED", "green", "blue", "grey"))
    artifacts.save_teacher(replace(tiny_teacher, info=owned), tmp_path / "another")

    with runners._stored(loaded, RunFolder(tmp_path / "run"), PlainScreen(Console())) as (as_run, settings):
        assert settings is not None
        stored, address = Storage(settings), ObjectAddress.parse(as_run.teacher.source)
        for file in (tmp_path / "another").iterdir():
            stored.upload(file, address / file.name)

        def fetch(address: str, folder: Path, report: object) -> Path:
            return folders.fetch(stored, ObjectAddress.parse(address), folder, lambda done, total: None)

        with pytest.raises(ArtifactError, match="have the sha256 that the recipe says"):
            sources.fetch(as_run.teacher, stored=fetch)


def test_a_folder_of_which_only_the_weights_are_named_is_fetched_where_it_is(recipe: Path, tmp_path: Path):
    loaded = recipe_module.load(recipe)
    weights = artifacts.sha256_of(Path(loaded.teacher.source) / "weights.safetensors")
    named = loaded.model_copy(update={"teacher": loaded.teacher.model_copy(update={"sha256": weights})})

    with runners._stored(named, RunFolder(tmp_path / "run"), PlainScreen(Console())) as (as_run, _):
        assert as_run.teacher == named.teacher


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
