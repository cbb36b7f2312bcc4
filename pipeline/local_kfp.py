"""What kfp.local 2.17.0 lacks for a person at a terminal, added in one place and taken away again afterwards.

Three gaps, each found in its source:

- SubprocessTaskHandler prints what a task says, leaves the task running when it is interrupted, and replaces the
  text "python3" in every argument, paths included. `_Task` streams lines to a listener, kills what it started, and
  calls KFP's executor directly, without a shell or a left-over temporary folder.
- A `dsl.OneOf` over artifacts compiles, and runs on a cluster, but is refused locally; over parameters it works.
- Everything is logged to stdout. Here it goes to a file.
"""

from __future__ import annotations

import contextlib
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

SUPPORTED = "2.17.0"


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


def run(
    pipeline: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    root: Path,
    log: TextIO,
    listener: Listener,
    keep_open: Sequence[int] = (),
) -> bool:
    """Run a compiled pipeline in subprocesses of this interpreter.

    Args:
        pipeline: what `@dsl.pipeline` made.
        arguments: its parameters.
        root: the folder for its outputs and scratch files.
        log: where KFP's own messages go.
        listener: is told what happens.
        keep_open: file descriptors that the tasks inherit (a lock that must outlive this process).

    Returns:
        Whether every task ended well.
    """
    with _without_folders_called_docker():
        from kfp import local
        from kfp.local import task_dispatcher  # noqa: F401 - is what imports docker
        from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils

    with contextlib.ExitStack() as stack:
        stack.enter_context(_tasks_report_to(listener, root / "scratch", keep_open))
        stack.enter_context(_replaced(OrchestratorUtils, "get_dag_output_artifacts", _one_of_artifacts))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # image names without "python", settings that only a cluster honours
        stack.enter_context(contextlib.redirect_stdout(log))
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(root / "outputs"),
            workspace_root=str(root / "workspace"),
            raise_on_error=True,
        )
        try:
            pipeline(**arguments)
        except RuntimeError as error:
            if "Inner task failed" not in str(error):
                raise
            return False
    return True


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
def _tasks_report_to(listener: Listener, scratch: Path, keep_open: Sequence[int]) -> Iterator[None]:
    from kfp.local import status, subprocess_task_handler

    scratch.mkdir(parents=True, exist_ok=True)

    class _Task(subprocess_task_handler.SubprocessTaskHandler):  # type: ignore[misc]  # kfp has no types
        def validate_image(self, image: str) -> None:
            """Our images hold Python, whatever their name."""

        def run(self) -> Any:
            exit_code = _run_component(self.full_command, listener, scratch, keep_open)
            return status.Status.SUCCESS if exit_code == 0 else status.Status.FAILURE

    with _replaced(subprocess_task_handler, "SubprocessTaskHandler", _Task):
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _run_component(full_command: Sequence[str], listener: Listener, scratch: Path, keep_open: Sequence[int]) -> int:
    # KFP's command is: sh -ec SCRIPT SOURCE --executor_input JSON --function_to_execute NAME
    source, arguments = full_command[3], list(full_command[4:])
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    task = _task(options["--function_to_execute"], json.loads(options["--executor_input"]))
    module = scratch / f"{task.name}_component.py"
    module.write_text(source)
    command = [sys.executable, "-m", "kfp.dsl.executor_main", "--component_module_path", str(module), *arguments]
    environment = {**os.environ, "_KFP_RUNTIME": "true", "PYTHONUNBUFFERED": "1"}
    listener.started(task)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        pass_fds=keep_open,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            for line in process.stdout:
                listener.said(task, line.rstrip("\n"))
            exit_code = process.wait()
        finally:
            process.kill()  # does nothing to one that has ended
    listener.ended(task, exit_code)
    return exit_code


def _task(name: str, executor_input: Mapping[str, Any]) -> Task:
    outputs = executor_input["outputs"]
    paths = {key: Path(value["artifacts"][0]["uri"]) for key, value in outputs.get("artifacts", {}).items()}
    return Task(name, paths, Path(outputs["outputFile"]))


def _one_of_artifacts(dag_outputs_spec: Any, io_store: Any) -> dict[str, Any]:
    """`OrchestratorUtils.get_dag_output_artifacts`, with the branch that ran where several are named."""
    outputs = {}
    for key, selectors in dag_outputs_spec.artifacts.items():
        for selector in selectors.artifact_selectors:
            with contextlib.suppress(ValueError):  # raised for a branch that did not run
                outputs[key] = io_store.get_task_output(selector.producer_subtask, selector.output_artifact_key)
        if key not in outputs:
            raise ValueError(f"no branch made the output {key}")
    return outputs
