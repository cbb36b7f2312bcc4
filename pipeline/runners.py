"""Running a recipe on this machine, in a folder that the same command always finds again."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import yaml

from pipeline import local_kfp
from pipeline.local_kfp import Task
from pipeline.redaction import Redacted, redacted
from pipeline.watch import Screen, Watch
from resprout import __version__, statement
from resprout import recipe as recipe_module
from resprout.errors import ArtifactError, RecipeError, ResproutError, StorageError
from resprout.files import appended_to, opened, refuse_links_of_others, write_atomically
from resprout.keys import KEY_FILE, own_key
from resprout.manifest import MANIFEST, digest_of, record_of
from resprout.recipe import PlacementSection, Recipe
from resprout.recipe.form import kind_of, to_inputs
from resprout.statement import STATEMENT
from resprout.storage.keys import CHECKPOINT_KEY_FILE
from resprout.urls import without_secrets

if TYPE_CHECKING:
    from resprout.storage import StorageSettings

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


class StageFailedError(ResproutError):
    """A stage of a run failed; `traceback` holds what it wrote before its message."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


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
        with _locked(self):
            return self.clear()

    def clear(self) -> bool:
        """`set_aside`, for who holds the lock."""
        found = self.has_result or (self.path / "metrics.json").exists()
        if found:
            _remove(self.earlier)
            self.earlier.mkdir()
        for name in [name for name in RESULTS if (self.path / name).exists()]:
            if found:
                (self.path / name).rename(self.earlier / name)
            elif name != self.log.name:
                _remove(self.path / name)
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
            here, wanted = (_flat(_written(it)) for it in (recipe_module.load(self.path / "recipe.yaml"), recipe))
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


def run(recipe: Recipe, folder: RunFolder, screen: Screen, *, in_containers: bool = False) -> None:
    """Run the pipeline for a recipe and leave its results in the folder.

    Where no object storage is configured and SeaweedFS is installed, a server of the run's own holds the teacher's
    folder and the result, so that a run on one machine goes the way of one on a cluster.

    Raises:
        StageFailedError: a stage failed; what long stages finished is kept in the folder.
        ResproutError: another run is at work in the folder; there is no Docker Engine; storage cannot be reached.
        KeyboardInterrupt: on SIGINT and SIGTERM, when everything that was started has been killed.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    started = datetime.now(timezone.utc)
    with _locked(folder) as lock, terminated_like_interrupted():
        folder.clear()  # also what another run left while this one waited for it
        with appended_to(folder.log) as file:
            log = cast(TextIO, Redacted(file))
            shutil.rmtree(folder.work, ignore_errors=True)
            _write_recipe(recipe, folder)
            watch = _Collect(screen, log)
            try:
                with _stored(recipe, folder, screen) as (stored_recipe, settings):
                    ended_well = _run_pipeline(stored_recipe, folder, in_containers, settings, watch, log, lock)
                evaluated = any(task.name == "evaluate" for task in watch.finished)
                if evaluated:
                    _put_in_place(watch.finished, folder)
            finally:
                shutil.rmtree(folder.work, ignore_errors=True)
        if evaluated:  # nothing is written from here on
            _state(recipe, folder, started)
        if not ended_well:
            raise _failure(watch, folder)
        shutil.rmtree(folder.checkpoints, ignore_errors=True)


def _state(recipe: Recipe, folder: RunFolder, started: datetime) -> None:
    """Say what the run left, of what it was made, and that all of it is there; then nothing of an earlier one is."""
    from resprout.storage import builder

    made = statement.build(
        statement.digests_below(folder.path, RESULTS[1:]),
        record_of("evaluation", folder.path / "evaluation"),
        _written(recipe),
        builder.from_environment(),
        started=started,
    )
    with write_atomically(folder.path / STATEMENT) as path:
        path.write_bytes(made.to_bytes())
    _remove(folder.earlier)


def _failure(watch: _Collect, folder: RunFolder) -> Exception:
    failed = watch.failure
    if failed is None:
        return RuntimeError("see log.txt")
    kept = f"\n  kept: the result, which is in {folder.path}" if folder.has_result else ""
    if folder.earlier.exists():
        kept = f"\n  kept: the result of the run before, which is in {folder.earlier}"
    return StageFailedError(failed.message + kept, failed.traceback)


@contextlib.contextmanager
def _stored(recipe: Recipe, folder: RunFolder, screen: Screen) -> Iterator[tuple[Recipe, StorageSettings | None]]:
    """The recipe as it is run, and the object storage that it is run with."""
    from pipeline import embedded_storage
    from resprout import storage

    configured, recipe = storage.from_environment(), _naming_the_folder(recipe)
    with contextlib.ExitStack() as stack:
        if configured is None and embedded_storage.installed():
            try:
                configured = stack.enter_context(embedded_storage.serving(folder.work.resolve() / "storage"))
                recipe = embedded_storage.through(recipe, configured)
            except StorageError as error:
                # it changes no result: what a run needs it for is to go the way of one on a cluster
                configured = None
                screen.line(f"storage      going on without the run's own: {str(error).splitlines()[0]}")
        yield recipe, configured


def _naming_the_folder(recipe: Recipe) -> Recipe:
    """A recipe that says which teacher lies in a folder of this machine now: no other is fetched, wherever from."""
    folder = Path(recipe.teacher.source)
    if recipe.teacher.sha256 is not None or not (folder / MANIFEST).is_file():
        return recipe
    teacher = recipe.teacher.model_copy(update={"sha256": digest_of(folder)})
    return recipe.model_copy(update={"teacher": teacher})


def _run_pipeline(
    recipe: Recipe,
    folder: RunFolder,
    in_containers: bool,
    settings: StorageSettings | None,
    watch: Watch,
    log: TextIO,
    lock: int,
) -> bool:
    from pipeline.compress import pipeline

    kind, work = kind_of(recipe), folder.work.resolve()
    checkpoints = recipe.placement.checkpoints or str(folder.checkpoints.resolve())
    key_file, gpus = _key_file(folder), 0
    with contextlib.ExitStack() as stack:
        execute: local_kfp.Executor
        if in_containers:
            from pipeline.containers import containers, hands_out_gpus

            gpus = int(hands_out_gpus(recipe))
            execute = stack.enter_context(
                containers(recipe, work, checkpoints=checkpoints, key_file=key_file, settings=settings)
            )
        else:
            environment = {**_environment(settings), CHECKPOINT_KEY_FILE: str(key_file)}
            execute = local_kfp.subprocesses(keep_open=[lock], environment=environment)
        return local_kfp.run(
            pipeline(kind, _local(recipe.placement)),
            _inputs(recipe, kind, checkpoints, gpus),
            root=work,
            log=log,
            listener=watch,
            execute=execute,
            in_containers=in_containers,
        )


def _key_file(folder: RunFolder) -> Path:
    """Where the key is that seals what this run's stages keep: its own, in a file, so that no argument holds it."""
    from pipeline.containers import IMAGES_USER

    path = folder.checkpoints.resolve() / KEY_FILE
    is_root = not os.getuid()
    # a container's user owns what its stage may write, also afterwards where root's process was killed
    own_key(path, others=(IMAGES_USER,) if is_root else ())
    if is_root:
        os.chown(path, 0, 0)
    return path


def _environment(settings: StorageSettings | None) -> dict[str, str]:
    """This process's environment, with the run's own object storage where none is configured in it."""
    from resprout import storage

    if settings is None or storage.from_environment():
        return dict(os.environ)
    others = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RESPROUT_STORAGE_"))}
    return {**others, **storage.variables(settings)}


def _inputs(recipe: Recipe, kind: str, checkpoints: str, gpus: int) -> dict[str, Any]:
    # a process computes with what there is; a container that was handed a GPU and cannot use it is to fail
    inputs = to_inputs(recipe, kind)
    return {**inputs, "placement": {**inputs["placement"], "gpus": gpus, "checkpoints": checkpoints}}


def _local(placement: PlacementSection) -> PlacementSection:
    # on one machine nobody moves a stage elsewhere, which is what longer pauses wait for
    return placement.model_copy(update={"retry_pause_seconds": 1})


class _Collect(Watch):
    """A watch that also remembers each finished task."""

    def __init__(self, screen: Screen, log: TextIO) -> None:
        super().__init__(screen, log)
        self.finished: list[Task] = []

    def said(self, task: Task, line: str) -> None:
        """See `Listener`. What is shown of a failure comes from these lines, too."""
        super().said(task, redacted(line))

    def ended(self, task: Task, exit_code: int) -> None:
        """See `Listener`."""
        super().ended(task, exit_code)
        if exit_code == 0:
            self.finished.append(task)


def _write_recipe(recipe: Recipe, folder: RunFolder) -> None:
    with write_atomically(folder.path / "recipe.yaml") as path:
        path.write_text(yaml.safe_dump(_written(recipe), sort_keys=False, allow_unicode=True))


def _written(recipe: Recipe) -> dict[str, Any]:
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


def _put_in_place(tasks: list[Task], folder: RunFolder) -> None:
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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: RunFolder) -> Iterator[int]:
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


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, with which CI systems cancel a job, do what Ctrl-C does."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
