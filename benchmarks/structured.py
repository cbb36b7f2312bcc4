"""What whole channels cost and save: accuracy, size and time at 2x and 4x fewer MACs, against the dense teacher.

    python benchmarks/structured.py                      # ResNet-20, both importances, seed 0; resumes where it stopped
    python benchmarks/structured.py --seeds 3 --importances taylor
    python benchmarks/structured.py --name resnet18      # the teacher in benchmarks/teachers/resnet18
    python benchmarks/structured.py --epochs 160 --name 160-epochs --teacher examples/resnet20-cifar10/teacher
    python benchmarks/structured.py --table              # print the table of what has been measured

Accuracy is on the 10,000 CIFAR-10 test images. Times are those of the student against its teacher, which take turns, on
the processor with --threads threads, and on the GPU too where there is one. Every cell is kept as soon as it is
measured, in benchmarks/results/MACHINE/structured-NAME.json (-N-threads where there are more than one).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import networks
import tables
import torch
from cells import ROOT, Setting, make_dreams, results_folder

from resprout import artifacts, datasets
from resprout.evaluation import evaluate
from resprout.files import write_atomically
from resprout.latency import measure_latency
from resprout.precision import best_device
from resprout.pruning import prune
from resprout.recipe import DistillationSection, ReconstructionSection, StructuredSection
from resprout.recovery import recover, repair
from resprout.recovery.start import mended, settle
from resprout.types import DreamSet, LabelledImages, StoredSize, Student, Teacher

BATCH_SIZES = (1, 64)
STARTS = ("repaired", "reconstructed")


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every cell is measured with."""

    setting: Setting
    teacher: Teacher
    test: LabelledImages
    epochs: int
    starts: tuple[str, ...]


def measure(bench: Bench, importance: str, macs_ratio: float, seed: int) -> dict[str, Any]:
    """One cell: a pruned network, repaired in each way, and what it takes to store and to run."""
    dreams = artifacts.load_dreams(bench.setting.dreams("ours", seed))
    started = time.monotonic()
    section = StructuredSection(macs_ratio=macs_ratio, importance=importance)
    pruned = prune(bench.teacher, section, seed=seed, dreams=dreams)
    repaired = repair(pruned, dreams)
    chosen = str(settle(DistillationSection(), bench.teacher, pruned, repaired, dreams).start)
    solved = recover(bench.teacher, pruned, dreams, ReconstructionSection(), seed=seed).recovered
    if chosen == "reconstructed" and not mended(bench.teacher, solved, dreams):
        chosen = "repaired"
    students = {"none": pruned, "dreams": repaired, "reconstruction": solved}
    for start in {chosen, *bench.starts}:
        first = solved if start == "reconstructed" else repaired
        students[f"distilled_{start}"] = _distilled(bench, first, repaired, dreams, start, seed)
    seconds = time.monotonic() - started
    scores = evaluate(bench.teacher, students, dataclasses.replace(dreams, num_held_out=0), bench.test)
    costs = scores.costs["teacher"], scores.costs["none"]
    return {
        "importance": importance,
        "macs_ratio": macs_ratio,
        "seed": seed,
        "top1": {score.name: round(100 * (score.top1 or 0), 2) for score in scores.scores},
        "start": chosen,
        "macs": [cost.dense_macs for cost in costs],
        "parameters": [cost.parameters for cost in costs],
        "size": [dataclasses.asdict(size) for size in _sizes(bench.teacher, students[f"distilled_{chosen}"])],
        "latency_ratio": _latency_ratios(bench.teacher, pruned),
        "seconds": round(seconds, 1),
    }


def _distilled(bench: Bench, first: Student, repaired: Student, dreams: DreamSet, start: str, seed: int) -> Student:
    """What distillation makes of a start that is there already, as it would if it had to make it."""
    section = settle(DistillationSection(epochs=bench.epochs, start=start), bench.teacher, first, repaired, dreams)
    as_it_is = section.model_copy(update={"start": "pruned"})
    return recover(bench.teacher, first, dreams, as_it_is, seed=seed).recovered


def _sizes(teacher: Teacher, student: Student) -> list[StoredSize]:
    """Teacher and student as the folders that they are stored in."""
    with tempfile.TemporaryDirectory() as folder:
        artifacts.save_teacher(teacher, Path(folder) / "teacher")
        artifacts.save_student(student, Path(folder) / "student", kind="model")
        return [artifacts.stored_size(Path(folder) / name) for name in ("teacher", "student")]


def _latency_ratios(teacher: Teacher, student: Student) -> dict[str, dict[str, float]]:
    """By kind of device, the CPU first, and by batch size: how long the student takes, in units of its teacher."""
    devices = {device.type: device for device in (torch.device("cpu"), best_device())}
    return {
        kind: {str(size): _latency_ratio(teacher, student, size, device) for size in BATCH_SIZES}
        for kind, device in devices.items()
    }


def _latency_ratio(teacher: Teacher, student: Student, batch_size: int, device: torch.device) -> float:
    shape = teacher.info.input.shape
    measured = measure_latency(student.network, teacher.network, shape, batch_size=batch_size, device=device)
    return round(measured.ratio, 3)


def run(bench: Bench, path: Path, options: argparse.Namespace) -> None:
    """Measure what is missing, and keep each cell at once."""
    document = _document(bench, path, options.name)
    wanted = [
        (importance, macs_ratio, seed)
        for seed in range(options.seeds)
        for importance in options.importances
        for macs_ratio in options.macs_ratios
    ]
    done = {(cell["importance"], cell["macs_ratio"], cell["seed"]) for cell in document["cells"]}
    for importance, macs_ratio, seed in (cell for cell in wanted if cell not in done):
        make_dreams(bench.setting, "ours", seed)
        cell = measure(bench, importance, macs_ratio, seed)
        document["cells"].append(cell)
        document["cells"].sort(key=lambda cell: (-cell["macs_ratio"], cell["importance"], cell["seed"]))
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n")
        print(cell, flush=True)


def _document(bench: Bench, path: Path, name: str) -> dict[str, Any]:
    """What has been measured with these settings."""
    settings = {
        "synthesis": bench.setting.synthesis("ours").model_dump(mode="json"),
        "recovery": DistillationSection(epochs=bench.epochs).model_dump(),
    }
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if found.get("recipe") == settings:
        return found
    nothing = DreamSet(torch.zeros(0, *bench.teacher.info.input.shape), torch.zeros(0).long(), 0, 2)
    return {
        "name": name,
        "teacher": artifacts.digest_of(bench.setting.teacher),
        "teacher_top1": round(100 * (evaluate(bench.teacher, {}, nothing, bench.test).score("teacher").top1 or 0), 2),
        "machine": machine.describe(),
        "threads": bench.setting.threads,
        "num_images": bench.setting.num_images,
        "recipe": settings,
        "cells": [],
    }


def _teacher_of(name: str) -> Path:
    return ROOT / ("examples/resnet20-cifar10/teacher" if name == "resnet20" else f"benchmarks/teachers/{name}")


def _results_of(name: str, threads: int) -> Path:
    """Apart for other numbers of threads too, so that no table mixes times of both."""
    of_threads = "" if threads == 1 else f"-{threads}-threads"
    return results_folder() / f"structured-{name}{of_threads}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="resnet20", help="of the network, and what the results are called")
    parser.add_argument("--dreams-of", help="the name under which recovery.py keeps the dreams; default: --name")
    parser.add_argument("--teacher", type=Path, help="default: of that name, in benchmarks/teachers or the example")
    parser.add_argument("--data", type=Path, default=ROOT / "data/cifar10", help="what `make cifar10` fetched")
    parser.add_argument("--num-images", type=int, default=networks.USUAL_NUM_IMAGES, help="how many dreams")
    parser.add_argument("--iterations", type=int, default=networks.USUAL_ITERATIONS, help="how long each is made")
    parser.add_argument("--coarsest", type=int, default=networks.USUAL_COARSEST, help="where their pyramid ends")
    parser.add_argument("--importances", nargs="+", default=["magnitude", "taylor"])
    parser.add_argument("--macs-ratios", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--starts", nargs="*", choices=STARTS, default=[], help="besides the one that auto chooses")
    parser.add_argument("--epochs", type=int, default=DistillationSection().epochs)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of the processor, for all networks alike")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the table")
    options = parser.parse_args()
    path = _results_of(options.name, options.threads)
    if not options.table:
        torch.set_num_threads(options.threads)
        setting = Setting(
            options.dreams_of or options.name,
            options.teacher or _teacher_of(options.name),
            options.data,
            options.threads,
            num_images=options.num_images,
            iterations=options.iterations,
            coarsest=options.coarsest,
        )
        teacher = artifacts.load_teacher(setting.teacher)
        test = datasets.load_labelled(setting.data / "test.safetensors", info=teacher.info)
        run(Bench(setting, teacher, test, options.epochs, tuple(options.starts)), path, options)
    print(tables.structured(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
