"""`resprout run` in this process, its stages forked from a process that has imported torch and kfp once.

A stage takes seconds to start and, in a test, a moment to do its work. Tests of what stages and the graph make of a
recipe start them warm; those of how processes start, say what they do and die run the command itself (`running.py`).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import torch
from kfp.dsl import executor_main
from typer.testing import CliRunner

from pipeline import local_kfp
from pipeline.cli import app

WARM = multiprocessing.get_context("forkserver")
KFP_AT_WORK = {"_KFP_RUNTIME": "true"}
STAGES = tuple(f"resprout.{name}" for name in ("artifacts", "synthesis", "pruning", "recovery", "evaluation", "report"))


def run_warm(*arguments: str | Path) -> tuple[int, str]:
    """The exit code of `resprout run` and what it wrote, its errors included."""
    with mock.patch.object(local_kfp, "subprocesses", forked):
        result = CliRunner().invoke(app, ["run", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def forked(keep_open: Sequence[int] = (), environment: Mapping[str, str] | None = None) -> local_kfp.Executor:
    """As `local_kfp.subprocesses`; `keep_open` has no use where the process that holds the lock does not die."""

    def execute(call: local_kfp.Call, said: Callable[[str], None]) -> int:
        arguments = local_kfp.component_arguments(call, local_kfp.COMPONENTS)
        variables = {**(os.environ if environment is None else environment), **KFP_AT_WORK}
        reader, writer = WARM.Pipe(duplex=False)
        with reader:
            process = _start(writer, arguments, variables)
            with open(reader.fileno(), errors="replace", closefd=False) as lines:
                for line in lines:
                    said(line.rstrip("\n"))
            process.join()
        exit_code = process.exitcode
        process.close()
        assert exit_code is not None
        return exit_code

    return execute


def _start(
    writer: Connection, arguments: list[str], variables: dict[str, str]
) -> multiprocessing.context.ForkServerProcess:
    WARM.set_forkserver_preload([__name__, *STAGES])
    with writer, mock.patch.dict(os.environ, KFP_AT_WORK):  # the server's own, which kfp reads when it is imported
        forkserver.ensure_running()
        process = WARM.Process(target=_stage, args=(writer, arguments, variables))
        process.start()
    return process


def _stage(writer: Connection, arguments: list[str], variables: dict[str, str]) -> None:
    for stream in (sys.stdout, sys.stderr):
        os.dup2(writer.fileno(), stream.fileno())
        stream.reconfigure(line_buffering=True)  # so that lines come as they are said, in that order
    os.environ.clear()
    os.environ.update(variables)
    torch.set_num_threads(1)
    sys.argv = ["executor_main", *arguments]
    executor_main.executor_main()
