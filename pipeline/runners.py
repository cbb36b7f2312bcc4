"""Running a recipe on this machine, in a folder that the same command always finds again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from pipeline import local_kfp
from pipeline.local_kfp import Task
from pipeline.redaction import Redacted, redacted
from pipeline.run_folder import RESULTS, RunFolder, locked, put_in_place, remove, write_recipe, written
from pipeline.watch import Screen, Watch
from resprout import statement
from resprout.errors import ResproutError, StorageError
from resprout.files import appended_to, write_atomically
from resprout.keys import KEY_FILE, own_key
from resprout.manifest import MANIFEST, digest_of, record_of
from resprout.recipe import PlacementSection, Recipe
from resprout.recipe.form import kind_of, to_inputs
from resprout.statement import STATEMENT
from resprout.storage.keys import CHECKPOINT_KEY_FILE

if TYPE_CHECKING:
    from resprout.storage import StorageSettings


class StageFailedError(ResproutError):
    """A stage of a run failed; `traceback` holds what it wrote before its message."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


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
    with locked(folder) as lock, terminated_like_interrupted():
        folder.clear()  # also what another run left while this one waited for it
        with appended_to(folder.log) as file:
            log = cast(TextIO, Redacted(file))
            shutil.rmtree(folder.work, ignore_errors=True)
            write_recipe(recipe, folder)
            watch = _Collect(screen, log)
            try:
                with _stored(recipe, folder, screen) as (stored_recipe, settings):
                    ended_well = _run_pipeline(stored_recipe, folder, in_containers, settings, watch, log, lock)
                evaluated = any(task.name == "evaluate" for task in watch.finished)
                if evaluated:
                    put_in_place(watch.finished, folder)
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
        written(recipe),
        builder.from_environment(),
        started=started,
    )
    with write_atomically(folder.path / STATEMENT) as path:
        path.write_bytes(made.to_bytes())
    remove(folder.earlier)


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


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, with which CI systems cancel a job, do what Ctrl-C does."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
