"""What `resprout scan` does: a teacher and its dreams from a run or from two folders, to figures and a page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.watch import screen_for
from resprout import artifacts, datasets, recipe, report
from resprout.artifacts.sensitivity import PAGE
from resprout.errors import ArtifactError, ResproutError
from resprout.files import check_writable
from resprout.recipe import SensitivitySection
from resprout.report.sensitivity import most_sensitive
from resprout.sensitivity import scan
from resprout.types import LabelledImages, Sensitivity, Teacher
from resprout.wording import printable


def run(
    source: Path,
    dreams: Path | None,
    *,
    output: Path | None,
    settings: Mapping[str, Any],
    data: Path | None,
    max_images: int | None,
    allow_custom_code: bool,
    plain: bool,
) -> None:
    """Scan, write the artifact with its page, and say what can spare least.

    Args:
        source: a run's folder, or with `dreams` a teacher's.
        dreams: a folder of dreams.
        output: where to; none: `sensitivity` in the run's folder.
        settings: fields of the sensitivity section.
        data, max_images: labelled images, to measure accuracy on too.
        allow_custom_code: the teacher may be built by a user's own function.
        plain: plain lines even on a terminal.

    Raises:
        ResproutError: with what, why and now.
    """
    section: SensitivitySection = recipe.validate(SensitivitySection, settings, "scan")
    folders = _folders(source, dreams)
    folder = _output(source if dreams is None else None, output)
    check_writable(folder.parent)
    inputs = artifacts.records(folders)
    digests = {record["name"]: record["sha256"] for record in inputs}
    teacher = artifacts.load_teacher(folders["teacher"], sha256=digests["teacher"], allow_custom_code=allow_custom_code)
    made = artifacts.load_dreams(folders["dreams"], sha256=digests["dreams"])
    labelled = _labelled(data, max_images, teacher)
    console = Console(file=sys.stdout)
    screen = screen_for(console, plain=plain)
    try:
        for text in labelled.notes if labelled else ():
            screen.note(f"{'':<13}{text}")
        screen.begin("sensitivity")
        found = scan(teacher, made, section, data=labelled, report=screen.advance)
    finally:
        screen.close()
    page = report.render_sensitivity(found, info=teacher.info, inputs=digests)
    digest = artifacts.save_sensitivity(found, folder, section=section, inputs=inputs, page=page)
    console.print(printable("\n".join(_told(found, folder, digest))), highlight=False, markup=False, soft_wrap=True)


def _folders(source: Path, dreams: Path | None) -> dict[str, Path]:
    """What to read: name -> folder."""
    if dreams is not None:
        return {"teacher": source, "dreams": dreams}
    found = {"teacher": source / "teacher", "dreams": source / "dreams"}
    missing = [name for name, path in found.items() if not path.is_dir()]
    if missing:
        raise ResproutError(
            f"{source} is no run's folder with its dreams made: it has no {' and no '.join(missing)}",
            why="a scan prunes the teacher and compares answers on dreams",
            now="give the folder of a run that made its dreams, or a teacher's folder and a folder of dreams",
        )
    return found


def _output(run_folder: Path | None, output: Path | None) -> Path:
    """Where to write; nothing but an earlier scan is replaced."""
    folder = output or (run_folder / "sensitivity" if run_folder else None)
    if folder is None:
        raise ResproutError("there is no folder to write to", now="give one with --output")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return folder
    try:
        earlier = artifacts.read_manifest(folder).kind == "sensitivity"
    except ArtifactError:
        earlier = False
    if not earlier:
        raise ResproutError(
            f"{folder} holds something that is no scan", why="it would be replaced", now="give --output a new folder"
        )
    return folder


def _labelled(data: Path | None, max_images: int | None, teacher: Teacher) -> LabelledImages | None:
    return None if data is None else datasets.load_labelled(data, info=teacher.info, max_images=max_images)


def _told(found: Sensitivity, folder: Path, digest: str) -> Iterator[str]:
    worst = most_sensitive(found)
    width = max(len(layer.name) for layer in worst)
    yield f"the {len(worst)} most sensitive of {len(found.layers)} layers, by the answers that pruning one alone costs"
    yield f"{'layer':<{width}}  {'lost':>7}  {'of all weights':>14}"
    for layer in worst:
        yield f"{layer.name:<{width}}  {100 * layer.lost:>5.1f} %  {100 * layer.share:>12.1f} %"
    quoted = ", ".join(f'"{layer.name}"' for layer in worst)
    yield f"to keep them whole: --set {shlex.quote(f'pruning.exclude=[{quoted}]')}"
    yield ""
    yield f"page    {folder / PAGE}"
    yield f"table   {folder / 'sensitivity.csv'}"
    yield f"digest  {digest}"
