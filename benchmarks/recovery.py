"""How much accuracy comes back: every way of repairing a pruned network, on the full CIFAR-10 test set.

    python benchmarks/recovery.py                        # ResNet-20, 3 seeds, 5 sparsities; resumes where it stopped
    python benchmarks/recovery.py --teacher benchmarks/teachers/vgg11_half --name vgg11_half --seeds 1
    python benchmarks/recovery.py --pruning lamp --rows none dreams reconstruction ours     # which weights go
    python benchmarks/recovery.py --pruning teacher_guided --guide real    # scored on real images, as in its paper
    python benchmarks/recovery.py --pruning lamp --rounds 3 --rows ours ceiling            # recovered in between
    python benchmarks/recovery.py --pruning lamp --rounds 3 --start repaired --rows ours   # trained anew in each
    python benchmarks/recovery.py --num-images 4096 --rows ours            # more dreams, and as much longer training
    python benchmarks/recovery.py --num-images 4096 --iterations 100 --rows ours           # and better ones
    python benchmarks/recovery.py --coarsest 4 --rows ours                 # plain dreams, alike in brightness
    python benchmarks/recovery.py --epochs 120 --batch-size 256 --rows ours                # another training
    python benchmarks/recovery.py --table                # print the table of what has been measured
    python benchmarks/recovery.py --plan benchmarks/plans/matrix.txt --workers 12          # many of these at once

Every cell is kept as soon as it is measured, in benchmarks/results/MACHINE/recovery-NAME.json, where MACHINE is cuda or
what the processor can do (avx2, avx512), with -PRUNING, -real, -N-rounds (-N-geometric-rounds), -N-dreams,
-N-iterations, -coarsest-N, -N-epochs, -N-between, -batches-of-N and -START after NAME where these are not the usual
ones. Rounds recover on what the row recovers on. A plan is a file of such command lines, the most urgent first; what
waits for a teacher still in training, waits.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import networks
from cells import DREAMS_OF, ROOT, Setting, make_dreams, measure, read, teacher_top1, write

from resprout import artifacts
from resprout.errors import ResproutError

SPARSITIES = (0.5, 0.75, 0.9, 0.95, 0.98)
TRIES = 3
Job = tuple[Any, ...]
"""What is done once: ("top1", teacher), ("dreams", folder), or ("cell", results, row, sparsity, seed)."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One setting, and which of its cells are wanted."""

    setting: Setting
    seeds: Sequence[int]
    sparsities: Sequence[float]
    rows: Sequence[str]

    def todo(self, document: dict[str, Any]) -> Iterator[tuple[str, float, int]]:
        """The cells that a document lacks, seed by seed."""
        done = {(cell["row"], cell["sparsity"], cell["seed"]) for cell in document["cells"]}
        cells = ((row, s, seed) for seed in self.seeds for s in self.sparsities for row in self.rows)
        return (cell for cell in cells if cell not in done)

    def dreams(self, row: str) -> set[str]:
        """The methods whose dreams a row needs."""
        guide = {"ours"} if self.setting.prunes_on_dreams() else set()
        return guide | {method for method, used_by in DREAMS_OF.items() if row in used_by}


class Work:
    """What is to be measured, and what has been.

    Args:
        lines: the most urgent first.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._documents: dict[Path, dict[str, Any]] = {}
        self._top1: dict[Path, float] = {}
        self._finished: set[Job] = set()

    def waits(self) -> bool:
        """Whether a teacher is not there yet."""
        return any(self._document(line.setting) is None for line in self._lines)

    def ready(self) -> Iterator[tuple[Job, Sequence[Any]]]:
        """What can be done now, with the function that does it and its arguments; what is running comes too."""
        for line in self._lines:
            setting, document = line.setting, self._document(line.setting)
            if document is None:
                continue
            top1: Job = ("top1", setting.teacher)
            if top1 not in self._finished:
                yield top1, (teacher_top1, setting)
            for row, sparsity, seed in line.todo(document):
                wanted = {("dreams", setting.dreams(method, seed)): method for method in line.dreams(row)}
                for job, method in wanted.items():
                    if job not in self._finished:
                        yield job, (make_dreams, setting, method, seed)
                cell: Job = ("cell", setting.results, row, sparsity, seed)
                if {top1, *wanted} <= self._finished and cell not in self._finished:
                    yield cell, (measure, setting, row, sparsity, seed)

    def finish(self, job: Job, result: Any) -> None:
        """Keep what came of a job; an exception where it failed, and is not tried again."""
        self._finished.add(job)
        if isinstance(result, BaseException):
            return
        if job[0] == "top1":
            self._top1[job[1]] = result
        if job[0] == "cell":
            line = next(line for line in self._lines if line.setting.results == job[1])
            self._documents[job[1]]["cells"].append(result)
            write(line.setting, self._documents[job[1]] | {"teacher_top1": self._top1[line.setting.teacher]})

    def _document(self, setting: Setting) -> dict[str, Any] | None:
        if setting.results not in self._documents and (setting.teacher / artifacts.MANIFEST).exists():
            self._documents[setting.results] = read(setting)
        return self._documents.get(setting.results)


class Slots:
    """Processes that each do one job at a time; one in which something failed is replaced, and its job done again.

    A process whose GPU failed once would fail all that it is given.
    """

    def __init__(self, count: int) -> None:
        self._idle = [_process() for _ in range(count)]
        self._busy: dict[Future[Any], tuple[Job, Sequence[Any], ProcessPoolExecutor]] = {}
        self._failures: dict[Job, int] = {}

    def free(self) -> int:
        return len(self._idle)

    def jobs(self) -> list[Job]:
        """What is running."""
        return [job for job, _, _ in self._busy.values()]

    def start(self, job: Job, call: Sequence[Any]) -> None:
        process = self._idle.pop()
        self._busy[process.submit(*call)] = job, call, process

    def finished(self) -> Iterator[tuple[Job, Any]]:
        """What is done since the last time: a job and its result; an exception, where it failed for good."""
        for future in wait(self._busy, timeout=1, return_when=FIRST_COMPLETED).done if self._busy else ():
            job, call, process = self._busy.pop(future)
            error = future.exception()
            if error is None:
                self._idle.append(process)
                yield job, future.result()
                continue
            process.shutdown(wait=False)
            self._idle.append(_process())
            self._failures[job] = self._failures.get(job, 0) + 1
            if self._failures[job] < TRIES and not isinstance(error, ResproutError):
                self.start(job, call)
            else:
                yield job, error

    def close(self) -> None:
        for process in self._idle:
            process.shutdown()


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def run(lines: Sequence[Line], workers: int, deadline: float) -> None:
    """Measure what is missing, several at a time, and keep each cell at once.

    Args:
        deadline: in seconds; what is not finished by then is given up.
    """
    started, work, slots = time.monotonic(), Work(lines), Slots(workers)
    while True:
        for job, call in work.ready():
            if not slots.free():
                break
            if job not in slots.jobs():
                slots.start(job, call)
        if not slots.jobs():
            if not work.waits():
                return slots.close()
            time.sleep(1)
        for job, result in slots.finished():
            work.finish(job, result)
            print(f"{time.monotonic() - started:.0f} s: {_told(job)}: {result!r}", flush=True)
        if time.monotonic() - started > deadline:
            print(f"given up after {deadline:.0f} s: {[_told(job) for job in slots.jobs()]}", flush=True)
            for process in multiprocessing.active_children():
                process.terminate()
            os._exit(0)  # executors would wait for what they had begun


def _told(job: Job) -> str:
    return " ".join(each.name if isinstance(each, Path) else str(each) for each in job)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="resnet20", help="what the results are called")
    parser.add_argument("--teacher", type=Path, help="default: the example's, or what teachers/train.py made of NAME")
    parser.add_argument("--data", type=Path, default=ROOT / "data/cifar10", help="what `make cifar10` fetched")
    parser.add_argument("--pruning", choices=networks.PRUNING, default=networks.USUAL_PRUNING, help="which weights go")
    parser.add_argument("--guide", choices=networks.GUIDES, default=networks.USUAL_GUIDE, help="what pruning looks at")
    parser.add_argument("--rounds", type=int, default=1, help="prune in so many, recovered in between")
    parser.add_argument("--schedule", choices=networks.SCHEDULES, default=networks.USUAL_SCHEDULE, help="of rounds")
    parser.add_argument("--num-images", type=int, default=networks.USUAL_NUM_IMAGES, help="how many dreams")
    parser.add_argument("--iterations", type=int, default=networks.USUAL_ITERATIONS, help="how long each is made")
    parser.add_argument("--coarsest", type=int, default=networks.USUAL_COARSEST, help="where their pyramid ends")
    parser.add_argument("--epochs", type=int, default=networks.USUAL_EPOCHS, help="of distillation")
    parser.add_argument("--round-epochs", type=int, default=networks.USUAL_ROUND_EPOCHS, help="between rounds")
    parser.add_argument("--batch-size", type=int, default=networks.USUAL_BATCH_SIZE, help="of distillation")
    parser.add_argument("--start", choices=networks.STARTS, default=networks.USUAL_START, help="of distillation")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--rows", nargs="+", choices=networks.ROWS, default=list(networks.ROWS))
    parser.add_argument("--threads", type=int, default=1, help="threads per worker")
    parser.add_argument("--workers", type=int, default=2, help="cells measured at a time")
    parser.add_argument("--deadline", type=float, default=float("inf"), help="seconds after which to give up")
    parser.add_argument("--plan", type=Path, help="a file with a line of these options for each setting")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the table")
    options = parser.parse_args(arguments)
    if options.teacher is None:
        example = ROOT / "examples/resnet20-cifar10/teacher"
        options.teacher = example if options.name == "resnet20" else ROOT / "benchmarks/teachers" / options.name
    if options.guide != networks.USUAL_GUIDE and not setting_of(options).section(0.5).looks_at_images:
        parser.error(f"--guide: {options.pruning} looks at no images")
    return options


def setting_of(options: argparse.Namespace) -> Setting:
    return Setting(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Setting)})


def lines_of(options: argparse.Namespace) -> list[Line]:
    """The plan's lines, or the one that the options themselves are."""
    chosen = [options]
    if options.plan:
        texts = (text.partition("#")[0] for text in options.plan.read_text().splitlines())
        chosen = [parse(shlex.split(text)) for text in texts if text.strip()]
    return [Line(setting_of(each), range(each.seeds), each.sparsities, each.rows) for each in chosen]


def main() -> None:
    options = parse(None)
    lines = lines_of(options)
    if not options.table:
        run(lines, options.workers, options.deadline)
    documents = {line.setting.results: line.setting.name for line in lines if line.setting.results.exists()}
    for name in dict.fromkeys(documents.values()):
        print(networks.network([json.loads(path.read_text()) for path, of in documents.items() if of == name]))


if __name__ == "__main__":
    main()
