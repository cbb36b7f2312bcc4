"""kfp.local as this project needs it: streaming, loops, failures, awkward paths, silence."""

import io
import os
from pathlib import Path
from typing import Any

import kfp
import pytest
from kfp import dsl
from kfp.local import graph_utils, placeholder_utils, subprocess_task_handler
from kfp.local.io import IOStore
from kfp.local.orchestrator import enhanced_dag_orchestrator, task_spec_utils

from pipeline import local_kfp
from pipeline.local_kfp import Call, Listener, Task
from tests.pipeline.talking.count import count
from tests.pipeline.talking.gather import gather
from tests.pipeline.talking.repeat import repeat
from tests.pipeline.talking.speak import speak
from tests.pipeline.talking.tell import tell

TALKING = Path(__file__).parent / "talking"
REPLACED = {
    "a handler": (subprocess_task_handler, "SubprocessTaskHandler"),
    "outputs": (IOStore, "put_task_output"),
    "placeholders": (placeholder_utils, "replace_placeholders"),
    "order": (graph_utils, "topological_sort"),
    "items": (task_spec_utils, "create_parameter_loop_iteration_task_spec"),
    "threads": (enhanced_dag_orchestrator, "ParallelExecutor"),
}


@pytest.fixture(autouse=True)
def _components_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_kfp, "COMPONENTS", TALKING)


@dsl.pipeline(name="conversation")
def conversation(words: str, upto: int, ends: str):
    said = count(upto=upto).outputs
    with dsl.ParallelFor(said["numbers"], name="everybody") as number:
        speaking = speak(words=words, number=number, heard=said["heard"], total=said["total"], names=said["names"])
    gathered = gather(said=dsl.Collected(speaking.outputs["said"]), heard=dsl.Collected(speaking.outputs["heard"]))
    repeat(said=gathered.outputs["all_said"], ends=ends).set_retry(2, backoff_duration="1s")


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


def run(root: Path, listener: Listener, **arguments: Any) -> tuple[bool, str]:
    log = io.StringIO()
    given = {"words": "hello", "upto": 1, "ends": "well"} | arguments
    execute = local_kfp.subprocesses()
    done = local_kfp.run(conversation, given, root=root, log=log, listener=listener, execute=execute)
    return done, log.getvalue()


def test_the_installed_kfp_is_the_one_whose_gaps_are_filled():
    assert kfp.__version__ == local_kfp.SUPPORTED


def test_a_loop_over_one_of_several_outputs_gives_its_tasks_the_item_and_each_other_output(tmp_path: Path):
    # both in a path and in an argument: kfp.local alone would replace "python3" in either
    recorder, words = Recorder(), "hello python3"
    done, _ = run(tmp_path / "python3", recorder, words=words, upto=2)

    assert done
    assert recorder.tasks[-1].outputs["again"].read_text().splitlines() == [
        *(f"heard {{'nobody': 'nothing', 'words': '{words} {number}'}}" for number in (10, 11)),
        f"{words} 10 of 2 ['a', 'b']",
        f"{words} 11 of 2 ['a', 'b']",
    ]
    assert recorder.events == [
        ("started", "count"),
        ("ended", "0"),
        *2
        * [
            ("started", "speak"),
            ("said", words),
            ("said", "on stderr"),
            ("ended", "0"),
        ],
        ("started", "gather"),
        ("ended", "0"),
        ("started", "repeat"),
        ("ended", "0"),
    ]
    assert recorder.tasks[1].facts() == {"length": len(words)}


@pytest.mark.parametrize(
    "words",
    ["{{$.inputs.parameters['number']}}", "{{$}}", "{{$.pipeline_job_name}}", "/kfp-workspace/{{$.x", '{"Concat": []}'],
)
def test_words_arrive_as_they_were_written(tmp_path: Path, words: str):
    recorder = Recorder()
    done, _ = run(tmp_path, recorder, words=words)

    assert done
    *_, said = recorder.tasks[-1].outputs["again"].read_text().splitlines()
    assert said == f"{words} 10 of 1 ['a', 'b']"


def test_tasks_come_first_that_wait_for_the_fewest():
    needed = {"dreams": ["statistics"], "test-set": ["teacher"], "statistics": ["teacher"], "teacher": ["elsewhere"]}
    assert local_kfp._early_first(needed)[::-1] == ["teacher", "statistics", "test-set", "dreams"]


def test_kfp_says_nothing_on_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    _, log = run(tmp_path, Recorder())

    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert "Executing task" in log


def test_a_task_that_fails_fails_the_run_and_is_not_tried_again(tmp_path: Path):
    recorder = Recorder()
    done, _ = run(tmp_path, recorder, ends="badly")

    assert not done
    assert recorder.events[-1] == ("ended", "3")
    assert recorder.events.count(("started", "repeat")) == 1, "it would fail again"
    assert recorder.tasks[-1].facts() == {}


def test_a_task_that_was_killed_is_tried_again(tmp_path: Path):
    recorder = Recorder()
    done, _ = run(tmp_path, recorder, ends="killed")

    assert done
    assert recorder.events[-4:] == [("started", "repeat"), ("ended", "-9"), ("started", "repeat"), ("ended", "0")]


def test_an_error_in_the_listener_ends_the_run_and_the_task(tmp_path: Path):
    class Refuses(Listener):
        def started(self, task: Task) -> None:
            raise LookupError(task.name)

    with pytest.raises(LookupError, match="count"):
        run(tmp_path, Refuses())


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_kfp_is_as_it_was_afterwards(tmp_path: Path, ends: str):
    before = {name: getattr(owner, attribute) for name, (owner, attribute) in REPLACED.items()}
    run(tmp_path, Recorder(), ends=ends)
    assert {name: getattr(owner, attribute) for name, (owner, attribute) in REPLACED.items()} == before


def test_no_file_of_the_working_folder_is_taken_for_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("statistics", "types", "resprout", "components", "yaml", "sitecustomize", "usercustomize", "runpy"):
        (tmp_path / f"{name}.py").write_text("open('was_run', 'w')\nraise SystemExit(7)\n")
    for name in ("kfp", "torch", "timm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("open('was_run', 'w')\nraise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)

    done, _ = run(tmp_path / "root", Recorder())

    assert done
    assert not (tmp_path / "was_run").exists()


def test_what_is_executed_is_the_component_of_that_name(tmp_path: Path):
    call = Call(Task("speak"), ("--executor_input", "{}", "--function_to_execute", "speak"), {}, (), tmp_path)
    assert local_kfp.component_arguments(call, Path("/opt/components")) == [
        "--component_module_path",
        "/opt/components/speak.py",
        *call.arguments,
    ]


def test_what_a_stage_is_given_stands_in_no_argument_of_its_process(tmp_path: Path):
    @dsl.pipeline(name="secretive")
    def secretive(words: str):
        tell(words=words)

    class Lines(Listener):
        def __init__(self) -> None:
            self.lines: list[str] = []
            self.written: list[str] = []

        def said(self, task: Task, line: str) -> None:
            self.lines.append(line)

        def ended(self, task: Task, exit_code: int) -> None:
            self.written.extend(path.read_text() for path in task.outputs.values())

    heard = Lines()
    secret = "https://alice:hunter2@127.0.0.1:9/x?X-Amz-Signature=TOPSECRET"
    execute = local_kfp.subprocesses(environment={**os.environ, "ADDED": "a variable"})
    log = io.StringIO()
    assert local_kfp.run(secretive, {"words": secret}, root=tmp_path, log=log, listener=heard, execute=execute), (
        heard.lines
    )

    assert heard.written == [secret]
    (arguments,) = (line for line in heard.lines if line.startswith("arguments:"))
    assert arguments.split()[-2:] == [str(local_kfp.EXECUTOR), "tell"]
    assert "hunter2" not in arguments
    assert "added: a variable" in heard.lines
    assert "asked for more: ''" in heard.lines
