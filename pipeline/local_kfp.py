"""What kfp.local 2.17.0 lacks for a person at a terminal, added in one place and taken away again afterwards.

Its gaps, each found in its source:

- SubprocessTaskHandler refuses components that live in an image, prints what a task says, leaves the task running when
  it is interrupted, and replaces the text "python3" in every argument, paths included. Here lines are streamed to a
  listener, what was started is killed, and KFP's executor is called directly, for the same functions.
- DockerTaskHandler removes a container when it ends, and takes it for a success where that comes before it has asked
  how it ended. `pipeline/containers.py` asks first.
- Tasks of a `dsl.ParallelFor` run in threads, which an interrupt does not reach. Here they follow each other.
- It loops over a task's only output, does not find one of several, and hands a loop's tasks the item in place of every
  output of a task. Here each output is found by the channel's name too, and only the item is the item.
- It goes to the end of one branch before it begins another. Here those tasks come first that wait for the fewest: what
  may be refused is, before the work.
- It retries whatever failed, a refused recipe too. Here that is for tasks that a signal killed.
- It replaces what looks like its placeholders in every text, a recipe's own words included. Here only a command's are.
- Everything is logged to stdout. Here it goes to a file.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import components

SUPPORTED = "2.17.0"
COMPONENTS = Path(components.__file__).parent
EXECUTOR = COMPONENTS / "_executor.py"
"""What starts a component, and reads on stdin what it is to do."""
_KFP_COMMAND = ("python3", "-m", "kfp.dsl.executor_main")


@dataclass(frozen=True)
class Task:
    """One component at work: its function's name, and where each of its outputs goes."""

    name: str
    outputs: Mapping[str, Path] = field(default_factory=dict)
    executor_output: Path = Path()

    def facts(self) -> dict[str, Any]:
        """What the component logged as metrics or wrote into its outputs' metadata; {} when it did not end well."""
        try:
            artifacts = json.loads(self.executor_output.read_text())["artifacts"]
        except (OSError, ValueError, LookupError):
            return {}
        return {
            name: value
            for output in artifacts.values()
            for name, value in output["artifacts"][0].get("metadata", {}).items()
        }


class Listener:
    """Is told of each task in turn, from the thread that runs the pipeline."""

    def started(self, task: Task) -> None:
        """A task starts."""

    def said(self, task: Task, line: str) -> None:
        """A task wrote a line to its stdout or stderr."""

    def ended(self, task: Task, exit_code: int) -> None:
        """A task ended, well if `exit_code` is 0."""


@dataclass(frozen=True)
class Call:
    """A component that is to run, as KFP has prepared it.

    Args:
        task: the component, and where its outputs go.
        arguments: of KFP's executor: --executor_input JSON --function_to_execute NAME.
        environment: variables that the pipeline sets for it.
        inputs: the artifacts that it is given.
        folder: what it may write to; each output lies in it.
    """

    task: Task
    arguments: Sequence[str]
    environment: Mapping[str, str]
    inputs: Sequence[Path]
    folder: Path


Executor = Callable[[Call, Callable[[str], None]], int]
"""Runs a call to its end, hands on each line that it writes, and returns its exit code: -n where signal n ended it."""


def run(
    pipeline: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    root: Path,
    log: TextIO,
    listener: Listener,
    execute: Executor,
    in_containers: bool = False,
) -> bool:
    """Run a compiled pipeline on this machine.

    Args:
        pipeline: what `@dsl.pipeline` made.
        arguments: its parameters.
        root: the folder for its outputs and scratch files.
        log: where KFP's own messages go.
        listener: is told what happens.
        execute: runs each component.
        in_containers: whether it does so in containers, which needs Docker's SDK.

    Returns:
        Whether every task ended well.
    """
    with _without_folders_called_docker():
        from kfp import local
        from kfp.local import (
            graph_utils,
            placeholder_utils,
            task_dispatcher,  # noqa: F401 - is what imports docker
        )
        from kfp.local.io import IOStore
        from kfp.local.orchestrator import enhanced_dag_orchestrator, task_spec_utils

    with contextlib.ExitStack() as stack:
        stack.enter_context(_handled_by(execute, listener, in_containers))
        stack.enter_context(_replaced(IOStore, "put_task_output", _found_by_channel(IOStore.put_task_output)))
        stack.enter_context(_replaced(graph_utils, "topological_sort", _early_first))
        stack.enter_context(_replaced(placeholder_utils, "replace_placeholders", _with_input))
        stack.enter_context(_replaced(task_spec_utils, "create_parameter_loop_iteration_task_spec", _iteration))
        stack.enter_context(_replaced(enhanced_dag_orchestrator, "ParallelExecutor", _OneAfterTheOther))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # image names without "python", settings that only a cluster honours
        stack.enter_context(contextlib.redirect_stdout(log))
        local.init(
            local.DockerRunner() if in_containers else local.SubprocessRunner(use_venv=False),
            pipeline_root=str(root / "outputs"),
            workspace_root=str(root / "workspace"),
            raise_on_error=True,
        )
        try:
            pipeline(**arguments)
        except _EndedBadlyError:
            return False
        except RuntimeError as error:
            if "Inner task failed" not in str(error):
                raise
            return False
    return True


class _EndedBadlyError(Exception):
    """A task ended by itself, and badly: it would do so again, so KFP is not to retry it."""


@contextlib.contextmanager
def _without_folders_called_docker() -> Iterator[None]:
    """Let KFP find Docker's SDK or nothing: to Python, a folder docker/ in a checkout is a package of that name."""
    found = importlib.util.find_spec("docker")
    if found is None or found.origin is not None or "docker" in sys.modules:
        yield
        return
    sys.modules["docker"] = None  # type: ignore[assignment]  # makes `import docker` an ImportError, which KFP expects
    try:
        yield
    finally:
        del sys.modules["docker"]


@contextlib.contextmanager
def _handled_by(execute: Executor, listener: Listener, in_containers: bool) -> Iterator[None]:
    from kfp.local import status

    module = importlib.import_module(f"kfp.local.{'docker' if in_containers else 'subprocess'}_task_handler")
    name = "DockerTaskHandler" if in_containers else "SubprocessTaskHandler"

    class _Handler(getattr(module, name)):  # type: ignore[misc]  # kfp has no types
        def validate_image(self, image: str) -> None:
            """Our images hold Python, whatever their name."""

        def validate_not_containerized_python_component(self, full_command: list[str]) -> None:
            """What the image holds is this machine's too."""

        def run(self) -> Any:
            call = _call(self.full_command, self.env_vars)
            listener.started(call.task)
            exit_code = execute(call, lambda line: listener.said(call.task, line))
            listener.ended(call.task, exit_code)
            if exit_code > 0:
                raise _EndedBadlyError(call.task.name)
            return status.Status.SUCCESS if exit_code == 0 else status.Status.FAILURE

    with _replaced(module, name, _Handler):
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _call(command: Sequence[str], environment: Mapping[str, str]) -> Call:
    arguments = list(command[len(_KFP_COMMAND) :])
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    executor_input = json.loads(options["--executor_input"])
    task = _task(options["--function_to_execute"], executor_input)
    given = executor_input["inputs"].get("artifacts", {}).values()
    inputs = [Path(artifact["uri"]) for item in given for artifact in item["artifacts"]]
    return Call(task, arguments, environment, inputs, task.executor_output.parent)


def component_arguments(call: Call, folder: Path) -> list[str]:
    """What KFP's executor is told, with the folder that the components are in: it need not be the working directory."""
    return ["--component_module_path", str(folder / f"{call.task.name}.py"), *call.arguments]


def told(
    call: Call,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    door: str | None = None,
    files: Mapping[str, str] | None = None,
) -> str:
    """What the executor in a folder of components reads on stdin.

    Args:
        call: what it is to run.
        folder: that of the components, where it runs.
        environment: variables to add, secrets among them.
        door: a socket that leads to the internet.
        files: to be written where it runs, for it alone: path -> text.
    """
    said = {"environment": dict(environment or {}), "door": door, "files": dict(files or {})}
    return json.dumps({"arguments": component_arguments(call, folder), **said}) + "\n"


def subprocesses(keep_open: Sequence[int] = (), environment: Mapping[str, str] | None = None) -> Executor:
    """Run components in processes of this interpreter, in which no file of the working folder is taken for a module.

    Args:
        keep_open: file descriptors that they inherit (a lock that must outlive this process).
        environment: theirs; none: that of this process.
    """

    def execute(call: Call, said: Callable[[str], None]) -> int:
        with subprocess.Popen(
            [sys.executable, str(EXECUTOR), call.task.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={
                **(os.environ if environment is None else environment),
                "_KFP_RUNTIME": "true",
                "PYTHONUNBUFFERED": "1",
            },
            pass_fds=keep_open,
        ) as process:
            assert process.stdin is not None  # noqa: S101 - pipes were asked for
            assert process.stdout is not None  # noqa: S101
            try:
                with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # it died before it read
                    stdin.write(told(call, COMPONENTS))
                for line in process.stdout:
                    said(line.rstrip("\n"))
                return process.wait()
            finally:
                process.kill()  # does nothing to one that has ended

    return execute


def _task(name: str, executor_input: Mapping[str, Any]) -> Task:
    outputs = executor_input["outputs"]
    paths = {key: Path(value["artifacts"][0]["uri"]) for key, value in outputs.get("artifacts", {}).items()}
    return Task(name, paths, Path(outputs["outputFile"]))


class _OneAfterTheOther:
    """`ParallelExecutor`, in the thread that a Ctrl-C reaches; on one machine, tasks share its cores or GPU anyway."""

    def execute_parallel_tasks(
        self, tasks: Sequence[tuple[str, Any]], *, io_store: Any, fail_stack: list[str], **same: Any
    ) -> tuple[dict[str, Any], Any]:
        """Run each; the first that fails is the last."""
        from kfp.local import status
        from kfp.local.orchestrator.enhanced_dag_orchestrator import execute_task

        same.pop("parallelism_limit", None)
        results = {}
        for name, spec in tasks:
            outputs, ended = execute_task(
                task_name=name, task_spec=spec, io_store=io_store, fail_stack=fail_stack, **same
            )
            if ended == status.Status.FAILURE:
                fail_stack.append(name)
                return {}, ended
            results[name] = outputs
            for key, output in outputs.items():
                io_store.put_task_output(name, key, output)
        return results, status.Status.SUCCESS


def _early_first(needed: Mapping[str, Sequence[str]]) -> list[str]:
    """`topological_sort`: a stack of tasks, by what each needs; on top those with the fewest before them."""
    depths: dict[str, int] = {}

    def depth(task: str) -> int:
        if task not in depths:
            depths[task] = 1 + max((depth(before) for before in needed[task] if before in needed), default=0)
        return depths[task]

    return sorted(needed, key=lambda task: (depth(task), task), reverse=True)


def _found_by_channel(put_task_output: Callable[..., None]) -> Callable[..., None]:
    def put(store: Any, task_name: str, key: str, value: Any) -> None:
        put_task_output(store, task_name, key, value)
        store.put_parent_input(f"pipelinechannel--{task_name}-{key}", value)

    return put


def _with_input(full_command: list[str], executor_input_dict: Any, **_: Any) -> list[str]:
    """`replace_placeholders`: our components' commands hold one, for all that the component is given."""
    return [json.dumps(executor_input_dict) if part == "{{$}}" else part for part in full_command]


def _iteration(loop: Any, item: Any, loop_name: str) -> Any:
    """`create_parameter_loop_iteration_task_spec`: a loop's task for one of its items."""
    from kfp.compiler import pipeline_spec_builder

    task = type(loop)()
    task.CopyFrom(loop)
    given = task.inputs.parameters[loop.parameter_iterator.item_input]
    given.runtime_value.constant.CopyFrom(pipeline_spec_builder.to_protobuf_value(item))
    task.ClearField("parameter_iterator")
    return task
