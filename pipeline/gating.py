"""What `resprout gate` does: metrics from wherever they are, against a recipe's limits, for people and for CI."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.run_folder import LOCK, RunFolder
from resprout import gate, manifest, verification
from resprout.errors import GateError
from resprout.files import write_atomically
from resprout.recipe import Recipe

PASSED, FAILED, RUN_FAILED, CANNOT_TELL = 0, 1, 3, 4


class RunFailedError(GateError):
    """There is no result, since the run that was to make it failed."""

    exit_code = RUN_FAILED


def judge(
    recipe: Recipe,
    result: str,
    *,
    junit: Path | None,
    markdown: Path | None,
    json_file: Path | None,
    sha256: str | None = None,
) -> tuple[int, str]:
    """Judge a result, and write what CI systems read.

    Args:
        recipe: its gate section has the limits.
        result: a run's folder, a metrics.json, or a published version's s3:// address.
        sha256: the digest that the model must have, so that it is this one's result and no other's.
        junit, markdown, json_file: files to write; Markdown is added to what the file holds, as CI summaries want it.

    Returns:
        The exit code, and a table for people.

    Raises:
        ResproutError: the result cannot be read.
    """
    checks = gate.judge(metrics_of(result, recipe, sha256), recipe.gate)
    table = gate.as_markdown(checks)
    if junit is not None:
        _write(junit, gate.as_junit(checks, recipe.name))
    if json_file is not None:
        _write(json_file, gate.as_json(checks))
    if markdown is not None:
        append_markdown(markdown, table)
    return {True: PASSED, False: FAILED, None: CANNOT_TELL}[gate.passed(checks)], table


def metrics_of(result: str, recipe: Recipe, sha256: str | None = None) -> Mapping[str, float]:
    """The metrics of a result; a run's, only while its folder holds them as it left them, and of this recipe.

    Raises:
        ResproutError: there are none, they are of another recipe or model, or storage refuses.
    """
    if result.startswith("s3://"):
        from pipeline import publications

        found: Mapping[str, float] = publications.metrics(result, sha256)
        return found
    path = Path(result)
    path = path / "metrics.json" if path.is_dir() else path
    if sha256 is not None:
        manifest.check(path.parent / "model", sha256=sha256)
    _check_run(RunFolder(path.parent), recipe)
    try:
        metrics = json.loads(path.read_text())
    except FileNotFoundError:
        raise GateError(
            f"there is no {path}", why="it holds what was measured", now="give a run's folder that ended well"
        ) from None
    except ValueError as error:
        raise GateError(f"{path} is not JSON: {error}", now="give the metrics.json of a run") from None
    if not isinstance(metrics, dict) or not any(name.startswith("recovered.") for name in metrics):
        raise GateError(f"{path} holds no metrics of a recovered network", now="give the metrics.json of a run")
    return metrics


def _check_run(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse a run's folder without a result, or with one that this recipe's limits say nothing about."""
    if folder.failed():
        raise RunFailedError(
            f"the run in {folder.path} has no result",
            why="it failed, or was stopped",
            now=f"{folder.log} says why; the same resprout run goes on from what is kept",
        )
    if not folder.has_result:
        if (folder.path / LOCK).exists():
            raise GateError(f"a run is at work in {folder.path}", now="wait until it has a result")
        return  # figures alone, which somebody has copied
    verification.require_measured(folder.path)
    if other := folder.another(recipe, but=("name", "gate", "publishing")):
        raise GateError(
            f"{folder.path} holds the result of another recipe: {other}",
            why="the limits are held against what their own recipe gives",
            now="run this recipe, or give the one that was run",
        )


def append_markdown(path: Path, text: str) -> None:
    """Add to a summary that CI systems show, which may have begun."""
    with path.open("a") as file:
        # without a blank line, what follows a table would be one more row of it
        file.write(f"\n\n{text}" if file.tell() else text)


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text)
