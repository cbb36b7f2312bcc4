"""What a CI system would run, read from its YAML: shell, and the environment it is run in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
GITLAB = yaml.safe_load((ROOT / "examples" / "ci" / "gitlab.yml").read_text())[".resprout"]


def resolved(text: str, inputs: Mapping[str, str]) -> str:
    """`${{ inputs.NAME }}` as GitHub resolves it; anything else in such braces is an error."""
    return re.sub(r"\$\{\{ *(.*?) *\}\}", lambda found: inputs[found[1].removeprefix("inputs.")], text)


def action_step(name: str, given: Mapping[str, str], environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """A step of the action: its shell, and its environment."""
    (step,) = [step for step in ACTION["runs"]["steps"] if step["name"] == name]
    inputs = {key: str(it.get("default", "")) for key, it in ACTION["inputs"].items()} | dict(given)
    assert inputs.keys() == ACTION["inputs"].keys()
    own = {key: resolved(value, inputs) for key, value in step["env"].items()}
    return step["run"], {**environment, **own, "GITHUB_ACTION_PATH": str(ROOT)}


def gitlab_script(given: Mapping[str, str], environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The template's script, its checkout being this one; a job's variables go before the template's."""
    (line,) = GITLAB["script"]
    return line.replace("/tmp/resprout", str(ROOT)), {**environment, **GITLAB["variables"], **given}


def shell(script: str, environment: Mapping[str, str], directory: Path) -> tuple[int, str]:
    """Run a step as GitHub and GitLab do: `bash -eo pipefail`, and what it said on either stream."""
    ended = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=directory,
        env=dict(environment),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return ended.returncode, ended.stdout


def with_command(folder: Path) -> dict[str, str]:
    """An environment whose `resprout` is this checkout's, as if ci/install.sh had been here."""
    folder.mkdir()
    command = folder / "resprout"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipeline.cli "$@"\n')
    command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RESPROUT_", "GITHUB_", "KF_"))}
    return {**kept, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def pod(document: Mapping[str, Any]) -> Any:
    """The pod that a CronJob, or a Sensor's first trigger, makes."""
    if document["kind"] == "CronJob":
        return document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    job = document["spec"]["triggers"][0]["template"]["k8s"]["source"]["resource"]
    return job["spec"]["template"]["spec"]
