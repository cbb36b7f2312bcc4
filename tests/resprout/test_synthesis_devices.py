"""Several devices give the images that one gives, whatever happens on the way. Processors stand in for GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from resprout import artifacts
from resprout import statistics as bn_statistics
from resprout.checkpoints import FolderCheckpoint
from resprout.errors import ArtifactError, DeviceError
from resprout.progress import Progress
from resprout.recipe import DeepInversionSection
from resprout.synthesis import synthesize, synthesize_shard, workers
from resprout.synthesis.methods import Work
from resprout.types import BNStatistics, DreamSet, Teacher

pytestmark = pytest.mark.slow  # each process imports torch

CPU = torch.device("cpu")
# the last group is smaller, and 21 is no multiple of the iterations between two reports
SMALL = DeepInversionSection(num_images=24, num_held_out=4, group_size=8, iterations=21, precision="float32")
NETWORKS = '''
import os, select, signal, threading
from pathlib import Path
from torch import nn
from resprout.errors import ArtifactError

class Refusing(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        raise ArtifactError("it broke", why="it had to", now="mend it")

class Dying(Refusing):
    def forward(self, images):
        os.kill(os.getpid(), signal.SIGKILL)

class Waiting(Refusing):
    def forward(self, images):
        print("at work", flush=True)
        threading.Event().wait()

class Stuck(nn.Module):
    """Of several processes, the first makes nothing before somebody writes to the pipe."""

    def __init__(self, network, folder):
        super().__init__()
        self.network, self.folder, self.asked = network, Path(folder), False

    def forward(self, images):
        if not self.asked and self.first():
            pipe = os.open(self.folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
            if not select.select([pipe], [], [], 120)[0]:
                raise TimeoutError("the others did not make the other groups")
        self.asked = True
        return self.network(images)

    def first(self):
        try:
            (self.folder / "first").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
'''


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Several processes with as many threads each as there are cores wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def statistics(tiny_teacher: Teacher) -> BNStatistics:
    return bn_statistics.extract(tiny_teacher)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of networks of somebody's own, which only this process's path leads to."""
    (tmp_path / "somebodys").mkdir()
    (tmp_path / "somebodys" / "networks_of_a_test.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path / "somebodys"))
    import networks_of_a_test

    yield networks_of_a_test
    del sys.modules["networks_of_a_test"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started."""
    processes: list[subprocess.Popen[bytes]] = []
    original = workers._start

    def start(device: torch.device) -> Any:
        worker = original(device)
        processes.append(worker.process)
        return worker

    monkeypatch.setattr(workers, "_start", start)
    return processes


class _StoppedError(Exception):
    pass


class _Stopping(FolderCheckpoint):
    """Fails at what it should keep after so many groups."""

    def __init__(self, directory: Path, after: int) -> None:
        super().__init__(directory)
        self.left = after

    def save(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        if not self.left:
            raise _StoppedError
        self.left -= 1
        super().save(key, tensors, about)


def same(one: DreamSet, other: DreamSet) -> bool:
    curves = all(torch.equal(other.curves[name], curve) for name, curve in one.curves.items())
    return torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets) and curves


def test_several_devices_give_the_images_of_one_and_one_stream_of_progress(
    tiny_teacher: Teacher,
    statistics: BNStatistics,
    started: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[Progress] = []
    alone = synthesize(tiny_teacher, statistics, SMALL, seed=4, devices=[CPU], report=heard.append)
    assert started == [], "one device needs no process"
    total = heard[-1].total
    assert total == 4 * SMALL.iterations

    heard.clear()
    monkeypatch.setattr(Work, "on", lambda *_: pytest.fail("who starts processes computes nothing"))
    together = synthesize(tiny_teacher, statistics, SMALL, seed=4, devices=[CPU, CPU], report=heard.append)
    assert same(together, alone)
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)
    done = [at.done for at in heard]
    assert done == sorted(done)
    assert done[0] == 0
    assert total - SMALL.iterations < done[-1] <= total
    assert {(at.stage, at.total, at.unit) for at in heard} == {("dreams", total, "iterations")}
    assert all({"bn", "ce"} <= set(at.figures) for at in heard[1:])


def test_a_shard_has_no_more_processes_than_groups(
    tiny_teacher: Teacher, statistics: BNStatistics, started: list[subprocess.Popen[bytes]]
) -> None:
    synthesize_shard(tiny_teacher, statistics, SMALL, seed=0, shard_index=1, num_shards=4, devices=[CPU] * 3)
    assert started == []
    synthesize_shard(tiny_teacher, statistics, SMALL, seed=0, shard_index=1, num_shards=2, devices=[CPU] * 3)
    assert len(started) == 2


@pytest.mark.parametrize(("before", "after"), [([CPU, CPU], [CPU]), ([CPU], [CPU, CPU])], ids=["fewer", "more"])
def test_what_some_devices_finished_others_go_on_from(
    tiny_teacher: Teacher,
    statistics: BNStatistics,
    tmp_path: Path,
    before: list[torch.device],
    after: list[torch.device],
) -> None:
    whole = synthesize(tiny_teacher, statistics, SMALL, seed=2, devices=[CPU])
    with pytest.raises(_StoppedError):
        synthesize(tiny_teacher, statistics, SMALL, seed=2, devices=before, checkpoint=_Stopping(tmp_path, after=2))
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.checkpoint")}
    assert len(kept) == 2
    heard: list[Progress] = []
    checkpoint = FolderCheckpoint(tmp_path)
    resumed = synthesize(
        tiny_teacher,
        statistics,
        SMALL,
        seed=2,
        devices=after,
        checkpoint=checkpoint,
        report=heard.append,
    )
    assert same(resumed, whole)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name in kept} == kept
    assert len(list(tmp_path.glob("*.checkpoint"))) == 4
    assert (heard[0].resumed, heard[0].done) == (True, 2 * SMALL.iterations)
    assert min(at.done for at in heard[1:]) > 2 * SMALL.iterations


def test_who_is_done_first_gets_the_next_group(
    tiny_teacher: Teacher, statistics: BNStatistics, networks: Any, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")

    class Freeing(FolderCheckpoint):
        saved = 0

        def save(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
            self.saved += 1
            if self.saved == 3:
                (tmp_path / "pipe").write_text("go on")

    stuck = replace(tiny_teacher, network=networks.Stuck(tiny_teacher.network, tmp_path))
    renamed = BNStatistics(tuple(replace(layer, name=f"network.{layer.name}") for layer in statistics.layers))
    made = synthesize(stuck, renamed, SMALL, seed=0, devices=[CPU, CPU], checkpoint=Freeing(tmp_path))
    assert same(made, synthesize(tiny_teacher, statistics, SMALL, seed=0, devices=[CPU]))


def test_an_error_there_is_an_error_here(
    tiny_teacher: Teacher, statistics: BNStatistics, networks: Any, started: list[subprocess.Popen[bytes]]
) -> None:
    refusing = replace(tiny_teacher, network=networks.Refusing(tiny_teacher.network))
    with pytest.raises(ArtifactError, match="it broke") as raised:
        synthesize(refusing, statistics, SMALL, seed=0, devices=[CPU, CPU])
    assert str(raised.value) == "it broke\n  why: it had to\n  now: mend it"
    assert "in forward" in str(raised.value.__cause__), "where it was raised is not lost"
    assert len(started) == 2
    assert all(process.returncode is not None for process in started), "nobody is left behind"


def test_a_process_that_dies_is_an_error_that_says_how(
    tiny_teacher: Teacher, statistics: BNStatistics, networks: Any
) -> None:
    dying = replace(tiny_teacher, network=networks.Dying(tiny_teacher.network))
    with pytest.raises(DeviceError, match="the process that synthesized on cpu was ended by signal 9") as raised:
        synthesize(dying, statistics, SMALL, seed=0, devices=[CPU, CPU])
    assert "memory" in raised.value.now


def test_an_error_that_does_not_travel_comes_as_text() -> None:
    class _LocalError(Exception):
        pass

    assert str(workers._picklable(_LocalError("no luck"))) == "_LocalError: no luck"
    told = ArtifactError("what", why="why", now="now")
    assert workers._picklable(told) is told


STAGE = """
import sys
from dataclasses import replace

import torch

sys.path.append(sys.argv[2])
import networks_of_a_test
from resprout import artifacts, statistics
from resprout.recipe import DeepInversionSection
from resprout.synthesis import synthesize

teacher = artifacts.load_teacher(sys.argv[1])
waiting = replace(teacher, network=networks_of_a_test.Waiting(teacher.network))
section = DeepInversionSection(num_images=16, num_held_out=0, group_size=8)
cpu = torch.device("cpu")
synthesize(waiting, statistics.extract(teacher), section, seed=0, devices=[cpu, cpu])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.usefixtures("networks")
def test_processes_end_with_who_started_them(tiny_teacher: Teacher, tmp_path: Path, number: signal.Signals) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    command = [sys.executable, "-c", STAGE, str(tmp_path / "teacher"), str(tmp_path / "somebodys")]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, start_new_session=True, **piped) as stage:
        assert stage.stdout is not None
        assert [stage.stdout.readline() for _ in range(2)] == ["at work\n"] * 2
        os.killpg(stage.pid, number)  # as a terminal does
        # the processes hold the other end too: it closes when the last of them is gone
        said, _ = stage.communicate(timeout=120)
    assert stage.returncode == -number
    assert said.count("Traceback") == (number == signal.SIGINT), "only the stage says where it was"
