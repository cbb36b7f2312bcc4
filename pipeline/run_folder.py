"""The folder of one recipe's run on this machine: what lies where, who holds it, and what of it counts as a result."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.local_kfp import Task
from resprout import __version__
from resprout import recipe as recipe_module
from resprout.errors import ArtifactError, RecipeError, ResproutError
from resprout.files import appended_to, opened, refuse_links_of_others, write_atomically
from resprout.recipe import Recipe
from resprout.statement import STATEMENT
from resprout.urls import without_secrets

# component -> its outputs -> where a person finds them in the run folder
LAYOUT = {
    "fetch_teacher": {"teacher": "teacher"},
    "extract_statistics": {"statistics": "statistics"},
    "collect_images": {"dreams": "dreams"},
    "merge_dreams": {"dreams": "dreams"},
    "prune": {"student": "student"},
    "recover": {"repaired": "repaired", "recovered": "model"},
    "evaluate": {"evaluation": "evaluation", "report": "report.html"},
    "publish": {"publication": "publication.json"},
}
# all that a run leaves, the statement on the rest of it first
RESULTS = (
    STATEMENT,
    *dict.fromkeys(name for outputs in LAYOUT.values() for name in outputs.values()),
    "metrics.json",
    "recipe.yaml",
    "log.txt",
)
LOCK = ".lock"
LOCK_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class RunFolder:
    """Where one recipe's run keeps everything: results, log, and what it needs to go on after a kill."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """What long stages have done so far; gone once the run ended well."""
        return self.path / "checkpoints"

    @property
    def work(self) -> Path:
        """Scratch of the run at work, its own object store's data among it."""
        return self.path / ".work"

    @property
    def log(self) -> Path:
        """Every line that any stage wrote."""
        return self.path / "log.txt"

    @property
    def earlier(self) -> Path:
        """The result of the run before, as it left it, until this one has a result."""
        return self.path / "earlier"

    @property
    def has_result(self) -> bool:
        """Whether the run here came to its result; the statement is written when all of it is in its place."""
        return (self.path / STATEMENT).exists()

    def set_aside(self) -> bool:
        """Move an earlier run's result to `earlier`, so that from now on nobody takes it for this run's.

        What a run left that had no result is removed, except for its log.

        Returns:
            Whether there was one.

        Raises:
            ResproutError: a run is at work here.
        """
        if not any((self.path / name).exists() for name in RESULTS):
            return False
        with locked(self):
            return self.clear()

    def clear(self) -> bool:
        """`set_aside`, for who holds the lock."""
        found = self.has_result or (self.path / "metrics.json").exists()
        if found:
            remove(self.earlier)
            self.earlier.mkdir()
        for name in [name for name in RESULTS if (self.path / name).exists()]:
            if found:
                (self.path / name).rename(self.earlier / name)
            elif name != self.log.name:
                remove(self.path / name)
        return found

    def refuse_foreign(self, recipe: Recipe) -> None:
        """Refuse a folder that holds something and was not made by a run, or the result of another recipe.

        Raises:
            ResproutError: a run would replace what is there.
        """
        if self.path.exists() and not (self.path / LOCK).exists() and any(self.path.iterdir()):
            raise ResproutError(
                f"{self.path} is not empty and not a run's folder",
                why="a run replaces folders like model/ and dreams/ in it",
                now="give --output a new folder",
            )

        has_result = self.has_result or (self.path / "metrics.json").exists()
        if has_result and (other := self.another(recipe)):
            raise ResproutError(
                f"{self.path} holds the result of another recipe: {other}",
                why="this run would replace its model, dreams and report",
                now=f"give --output a new folder, or remove {self.path}",
            )

    def another(self, recipe: Recipe, *, but: Sequence[str] = ()) -> str:
        """In what the recipe that was run here differs; "" where it does not.

        Args:
            recipe: the one that it is held against.
            but: sections that may differ.
        """
        try:
            here, wanted = (_flat(written(it)) for it in (recipe_module.load(self.path / "recipe.yaml"), recipe))
        except RecipeError as error:
            return error.what
        names = [name for name in {**here, **wanted} if here.get(name) != wanted.get(name)]
        names = [name for name in names if name.partition(".")[0] not in but]
        told = [f"{name} is {here.get(name)} there, {wanted.get(name)} here" for name in names[:3]]
        return ", ".join(told) + (f", and {len(names) - 3} more" if len(names) > 3 else "")

    def failed(self) -> bool:
        """Whether a run was here, has left no result, and is not at work any more."""
        if not (self.path / LOCK).exists() or self.has_result:
            return False
        with opened(self.path / LOCK) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def kept(self) -> list[str]:
        """What is there to go on from, for people: `4 groups of dreams`, `recovery's last epoch`."""
        names = [path.name for path in self.checkpoints.glob("*.checkpoint")]
        groups = sum(name.startswith("synthesis") for name in names)
        kept = [f"{groups} group{'s' if groups > 1 else ''} of dreams"] if groups else []
        if any(name.startswith("recovery") for name in names):
            return [*kept, "recovery's last finished epoch"]
        return [*kept, *(["the layers solved so far"] if any(name.startswith("solved") for name in names) else [])]


def folder_for(recipe: Recipe, runs: Path) -> RunFolder:
    """`runs/NAME-HASH`, where the hash stands for the resolved recipe, seed included, and Resprout's version."""
    fields = recipe.model_dump(mode="json", exclude={"placement"})  # changes where, never what
    text = json.dumps({"recipe": fields, "version": __version__}, sort_keys=True)
    return RunFolder(runs / f"{recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}")


def write_recipe(recipe: Recipe, folder: RunFolder) -> None:
    with write_atomically(folder.path / "recipe.yaml") as path:
        path.write_text(yaml.safe_dump(written(recipe), sort_keys=False, allow_unicode=True))


def written(recipe: Recipe) -> dict[str, Any]:
    fields = recipe.model_dump(mode="json")
    fields["teacher"]["source"] = without_secrets(recipe.teacher.source)
    return fields


def _flat(fields: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Each field that decides a result by its dotted name; where stages run does not."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        inner = isinstance(value, Mapping) and name != "arguments"
        if above or name != "placement":
            found |= _flat(value, f"{above}{name}.") if inner else {f"{above}{name}": value}
    return found


def put_in_place(tasks: list[Task], folder: RunFolder) -> None:
    """Move each output to its place; the statement, which follows, says that all are there."""
    for task in tasks:
        if task.name == "publish" and "address" not in task.facts():
            continue  # there was nowhere to
        for output, name in LAYOUT.get(task.name, {}).items():
            _move(task.outputs[output], folder.path / name)
    with write_atomically(folder.path / "metrics.json") as path:
        shutil.copyfile(folder.path / "evaluation" / "metrics.json", path)


def _move(source: Path, destination: Path) -> None:
    if not source.exists():
        raise ArtifactError(f"{source} was not written", why="the stage that makes it said that it ended well")
    os.replace(source, destination)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[int]:
    """Hold the folder alone. Tasks inherit the lock, so that one that outlives a killed run keeps others out."""
    refuse_links_of_others(folder.path)
    with appended_to(folder.path / LOCK) as file:
        give_up = time.monotonic() + LOCK_PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise ResproutError(
                        f"another run is at work in {folder.path}",
                        why="two runs would overwrite each other's results",
                        now="wait for it, or stop it; --runs DIR runs in another place",
                    ) from None
                time.sleep(0.1)
        yield file.fileno()
