"""kfp.local as this project needs it: streaming, branches, failures, awkward paths, silence."""

import io
from pathlib import Path

import kfp
import pytest
from kfp import dsl

from pipeline import local_kfp
from pipeline.local_kfp import Listener, Task


@dsl.component(base_image="image", install_kfp_package=False)
def speak(words: str, said: dsl.Output[dsl.Artifact], metrics: dsl.Output[dsl.Metrics]):
    import sys

    print(words)
    print("on stderr", file=sys.stderr)
    with open(said.path, "w") as file:
        file.write(words)
    metrics.log_metric("length", len(words))


@dsl.component(base_image="image", install_kfp_package=False)
def repeat(said: dsl.Input[dsl.Artifact], again: dsl.Output[dsl.Artifact], fail: bool):
    with open(said.path) as file, open(again.path, "w") as copy:
        copy.write(file.read())
    if fail:
        raise SystemExit(3)


@dsl.pipeline(name="conversation")
def conversation(loud: bool, fail: bool):
    with dsl.If(loud == True):  # noqa: E712 - KFP overloads ==
        high = speak(words="HELLO python3")
    with dsl.Else():
        low = speak(words="hello python3")
    repeat(said=dsl.OneOf(high.outputs["said"], low.outputs["said"]), fail=fail)


class Recorder(Listener):
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.tasks: list[Task] = []

    def started(self, task: Task) -> None:
        self.events.append(("started", task.name))

    def said(self, task: Task, line: str) -> None:
        if "KFP Executor" not in line and not line.startswith((" ", "{", "}")):
            self.events.append(("said", line))

    def ended(self, task: Task, exit_code: int) -> None:
        self.events.append(("ended", str(exit_code)))
        self.tasks.append(task)


def run(root: Path, **arguments: bool) -> tuple[bool, Recorder, str]:
    recorder, log = Recorder(), io.StringIO()
    execute = local_kfp.subprocesses(root / "scratch")
    done = local_kfp.run(conversation, arguments, root=root, log=log, listener=recorder, execute=execute)
    return done, recorder, log.getvalue()


def test_the_installed_kfp_is_the_one_whose_gaps_are_filled():
    assert kfp.__version__ == local_kfp.SUPPORTED


@pytest.mark.parametrize(("loud", "words"), [(True, "HELLO python3"), (False, "hello python3")])
def test_the_branch_that_ran_feeds_what_comes_after(tmp_path: Path, loud: bool, words: str):
    # both in a path and in an argument: kfp.local alone would replace "python3" in either
    done, recorder, _ = run(tmp_path / "python3", loud=loud, fail=False)

    assert done
    assert recorder.tasks[1].outputs["again"].read_text() == words
    assert recorder.events == [
        ("started", "speak"),
        ("said", words),
        ("said", "on stderr"),
        ("ended", "0"),
        ("started", "repeat"),
        ("ended", "0"),
    ]
    assert recorder.tasks[0].facts() == {"length": len(words)}


def test_kfp_says_nothing_on_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    _, _, log = run(tmp_path, loud=False, fail=False)

    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert "Executing task" in log


def test_a_task_that_fails_fails_the_run(tmp_path: Path):
    done, recorder, _ = run(tmp_path, loud=False, fail=True)

    assert not done
    assert recorder.events[-1] == ("ended", "3")
    assert recorder.tasks[-1].facts() == {}


def test_an_error_in_the_listener_ends_the_run_and_the_task(tmp_path: Path):
    class Refuses(Listener):
        def started(self, task: Task) -> None:
            raise LookupError(task.name)

    with pytest.raises(LookupError, match="speak"):
        local_kfp.run(
            conversation,
            {"loud": True, "fail": False},
            root=tmp_path,
            log=io.StringIO(),
            listener=Refuses(),
            execute=local_kfp.subprocesses(tmp_path / "scratch"),
        )
