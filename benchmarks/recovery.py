"""How much accuracy comes back: every way of repairing a pruned network, on the full CIFAR-10 test set.

    python benchmarks/recovery.py                        # ResNet-20, 3 seeds, 5 sparsities; resumes where it stopped
    python benchmarks/recovery.py --teacher benchmarks/teachers/vgg11_half --name vgg11_half --seeds 1
    python benchmarks/recovery.py --pruning lamp --rows none dreams reconstruction ours     # which weights go
    python benchmarks/recovery.py --pruning teacher_guided --guide real    # scored on real images, as in its paper
    python benchmarks/recovery.py --pruning lamp --rounds 3 --rows ours ceiling            # recovered in between
    python benchmarks/recovery.py --num-images 4096 --rows ours            # more dreams, and as much longer training
    python benchmarks/recovery.py --num-images 4096 --iterations 100 --rows ours           # and better ones
    python benchmarks/recovery.py --coarsest 4 --rows ours                 # plain dreams, alike in brightness
    python benchmarks/recovery.py --table                # print the table of what has been measured

Every cell is kept as soon as it is measured, in benchmarks/results/recovery-NAME.json, with -PRUNING, -real, -N-rounds
(-N-geometric-rounds), -N-dreams, -N-iterations and -coarsest-N after NAME where these are not the usual ones. Rounds
recover on what the row recovers on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

import machine
import networks
import torch

from resprout import artifacts, datasets, recipe, statistics, storage
from resprout.artifacts.folder import write_atomically
from resprout.checkpoints import fingerprint
from resprout.collecting import collect
from resprout.evaluation import evaluate
from resprout.pruning import prune
from resprout.recipe import (
    DeepInversionSection,
    DistillationSection,
    ImagesSection,
    PaperRecoverySection,
    PaperSynthesisSection,
    PruningBase,
    PruningSection,
    ReconstructionSection,
    RecoverySection,
    SynthesisSection,
)
from resprout.recovery import recover, repair
from resprout.rounds import prune_on_dreams
from resprout.seeding import generator
from resprout.synthesis import synthesize
from resprout.types import DreamSet, LabelledImages, Student, Teacher

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DREAMS_OF = {"paper": {"paper"}, "ours": {"dreams", "reconstruction", "ours", "plain"}}
PLAIN = DistillationSection(temperature=4.0, zoom=1.0, rotation=0.0, cutmix=0.0)
"""What the defaults were before views were varied more."""
FIXED_ROWS = {"none", "noise", "paper"}
"""What does not change with our defaults."""
SPARSITIES = (0.5, 0.75, 0.9, 0.95, 0.98)


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where a measurement reads from and writes to."""

    name: str
    teacher: Path
    data: Path
    threads: int
    pruning: str = networks.USUAL_PRUNING
    guide: str = networks.USUAL_GUIDE
    rounds: int = 1
    schedule: str = networks.USUAL_SCHEDULE
    num_images: int = networks.USUAL_NUM_IMAGES
    iterations: int = networks.USUAL_ITERATIONS
    coarsest: int = networks.USUAL_COARSEST

    @property
    def work(self) -> Path:
        return ROOT / "runs" / f"benchmark-{self.name}"

    def dreams(self, method: str, seed: int) -> Path:
        """The set of dreams that this method and seed give; named after the settings, which may change."""
        return self.work / f"dreams-{method}-{seed}-{fingerprint(self.synthesis(method).model_dump())[:8]}"

    def synthesis(self, method: str) -> SynthesisSection:
        if method == "paper":
            return PaperSynthesisSection(num_images=self.num_images, num_held_out=0)
        return DeepInversionSection(num_images=self.num_images, iterations=self.iterations, coarsest=self.coarsest)

    @property
    def results(self) -> Path:
        method = "" if self.pruning == networks.USUAL_PRUNING else f"-{self.pruning}"
        guide = "" if self.guide == networks.USUAL_GUIDE else f"-{self.guide}"
        kind = "" if self.schedule == networks.USUAL_SCHEDULE else f"{self.schedule}-"
        rounds = "" if self.rounds == 1 else f"-{self.rounds}-{kind}rounds"
        dreams = "" if self.num_images == networks.USUAL_NUM_IMAGES else f"-{self.num_images}-dreams"
        iterations = "" if self.iterations == networks.USUAL_ITERATIONS else f"-{self.iterations}-iterations"
        coarsest = "" if self.coarsest == networks.USUAL_COARSEST else f"-coarsest-{self.coarsest}"
        return RESULTS / f"recovery-{self.name}{method}{guide}{rounds}{dreams}{iterations}{coarsest}.json"

    def section(self, sparsity: float) -> PruningSection:
        fields = {"method": self.pruning, "sparsity": sparsity, "rounds": self.rounds, "schedule": self.schedule}
        section: PruningSection = recipe.section("pruning", fields)
        return section

    def prunes_on_dreams(self) -> bool:
        return self.section(0.5).looks_at_images and self.guide == networks.USUAL_GUIDE


@lru_cache(maxsize=2)
def _load(setting: Setting) -> tuple[Teacher, LabelledImages]:
    torch.set_num_threads(setting.threads)
    teacher = artifacts.load_teacher(setting.teacher)
    return teacher, datasets.load_labelled(setting.data / "test.safetensors", info=teacher.info)


def make_dreams(setting: Setting, method: str, seed: int) -> float:
    """Synthesize a set of dreams once, or find it; the seconds that took."""
    directory, section = setting.dreams(method, seed), setting.synthesis(method)
    if (directory / artifacts.MANIFEST).exists():
        return 0.0
    teacher, _ = _load(setting)
    started = time.monotonic()
    dreams = synthesize(teacher, statistics.extract(teacher), section, seed=seed)
    artifacts.save_dreams(
        dreams, directory, input=teacher.info.input, section=section.model_dump(mode="json"), seed=seed, inputs={}
    )
    return time.monotonic() - started


def measure(setting: Setting, row: str, sparsity: float, seed: int) -> dict[str, Any]:
    """One cell: the top-1 that `row` reaches at `sparsity`, in percent."""
    teacher, test = _load(setting)
    started = time.monotonic()
    pruned = _pruned(setting, row, teacher, sparsity, seed)
    student = _repaired(setting, row, teacher, pruned, seed)
    seconds = time.monotonic() - started
    return {
        "row": row,
        "sparsity": sparsity,
        "seed": seed,
        "top1": _top1(dataclasses.replace(teacher, network=student.network), test),
        "seconds": round(seconds, 1),
    }


def _pruned(setting: Setting, row: str, teacher: Teacher, sparsity: float, seed: int) -> Student:
    section = setting.section(sparsity)
    if setting.rounds == 1:
        return prune(teacher, section, seed=seed, dreams=_guide(setting, teacher, seed))
    images = _images_of(setting, row, teacher, seed)
    if images is None:
        raise SystemExit(f"--rounds: nothing is recovered on in the row {row}")
    return prune_on_dreams(teacher, images, section, _section_of(row), seed=seed).student


def _guide(setting: Setting, teacher: Teacher, seed: int) -> DreamSet | None:
    """What pruning looks at, where it looks at images."""
    if not setting.section(0.5).looks_at_images:
        return None
    if setting.prunes_on_dreams():
        return artifacts.load_dreams(setting.dreams("ours", seed))
    return _real_images(setting, teacher, seed)


def _repaired(setting: Setting, row: str, teacher: Teacher, pruned: Student, seed: int) -> Student:
    if row == "none":
        return pruned
    if row == "noise":
        return repair(pruned, _noise(setting, teacher, seed))
    images = _images_of(setting, row, teacher, seed)
    assert images is not None
    if row == "dreams":
        return repair(pruned, images)
    return recover(teacher, pruned, images, _section_of(row), seed=seed).recovered


def _images_of(setting: Setting, row: str, teacher: Teacher, seed: int) -> DreamSet | None:
    """What a row recovers on."""
    if row in ("none", "noise"):
        return None
    if row in ("ceiling", "plain_ceiling"):
        return _real_images(setting, teacher, seed)
    return artifacts.load_dreams(setting.dreams("paper" if row == "paper" else "ours", seed))


def _section_of(row: str) -> RecoverySection:
    others = {"reconstruction": ReconstructionSection(), "paper": PaperRecoverySection()}
    plain = dict.fromkeys(("plain", "plain_ceiling"), PLAIN)
    return (others | plain).get(row, DistillationSection())


def _noise(setting: Setting, teacher: Teacher, seed: int) -> DreamSet:
    images = torch.randn(setting.num_images, *teacher.info.input.shape, generator=generator(seed, "noise"))
    return DreamSet(images.half(), torch.zeros(setting.num_images, dtype=torch.int64), 0, teacher.info.num_classes)


def _real_images(setting: Setting, teacher: Teacher, seed: int) -> DreamSet:
    """As many real training images as there are dreams, held-out ones too, balanced over the classes."""
    section = ImagesSection(data=str(setting.data / "train.safetensors"), num_images=setting.num_images)
    return collect(section, info=teacher.info, seed=seed, stored=storage.stored)


def _top1(model: Teacher, test: LabelledImages) -> float:
    """A network's accuracy on the test set, in percent."""
    nothing = DreamSet(torch.zeros(0, *model.info.input.shape, dtype=torch.float16), torch.zeros(0).long(), 0, 10)
    top1 = evaluate(model, {}, nothing, test).score("teacher").top1
    assert top1 is not None
    return round(100 * top1, 2)


def teacher_top1(setting: Setting) -> float:
    """The teacher's own accuracy on the test set, in percent."""
    return _top1(*_load(setting))


def run(setting: Setting, seeds: Iterable[int], sparsities: Sequence[float], rows: Sequence[str], workers: int) -> None:
    """Measure what is missing, seed by seed, and keep each cell at once."""
    document = _read(setting)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        document["teacher_top1"] = pool.submit(teacher_top1, setting).result()
        for seed in seeds:
            wanted = {method for method, used_by in DREAMS_OF.items() if used_by & set(rows)}
            wanted |= {"ours"} if setting.prunes_on_dreams() else set()
            for method, future in [
                (method, pool.submit(make_dreams, setting, method, seed)) for method in sorted(wanted)
            ]:
                print(f"seed {seed}: {method} dreams in {future.result():.0f} s", flush=True)
            done = {(cell["row"], cell["sparsity"], cell["seed"]) for cell in document["cells"]}
            todo = [(row, s, seed) for s in sparsities for row in rows if (row, s, seed) not in done]
            for future in as_completed([pool.submit(measure, setting, *cell) for cell in todo]):
                cell = future.result()
                document["cells"].append(cell)
                _write(setting, document)
                print(cell, flush=True)


def _read(setting: Setting) -> dict[str, Any]:
    """What has been measured, less the cells that other defaults than today's gave."""
    synthesis = setting.synthesis("ours").model_dump(mode="json")
    settings = {"synthesis": synthesis, "recovery": DistillationSection().model_dump()}
    told = setting.section(0.5).model_dump(exclude={"method", *PruningBase.model_fields})
    settings |= {"pruning": told} if told else {}
    if not setting.results.exists():
        return {
            "name": setting.name,
            "pruning": setting.pruning,
            "guide": setting.guide,
            "rounds": setting.rounds,
            "schedule": setting.schedule,
            "teacher": artifacts.digest_of(setting.teacher),
            "machine": machine.describe(),
            "num_images": setting.num_images,
            "iterations": setting.iterations,
            "coarsest": setting.coarsest,
            "recipe": settings,
            "cells": [],
        }
    document: dict[str, Any] = json.loads(setting.results.read_text())
    if document["recipe"] != settings:
        still = FIXED_ROWS if document["recipe"].get("pruning") == settings.get("pruning") else set()
        document["recipe"] = settings
        document["cells"] = [cell for cell in document["cells"] if cell["row"] in still]
    return document


def _write(setting: Setting, document: dict[str, Any]) -> None:
    document["cells"].sort(key=lambda cell: (cell["seed"], list(networks.ROWS).index(cell["row"]), cell["sparsity"]))
    with write_atomically(setting.results) as path:
        path.write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="resnet20", help="what the results are called")
    parser.add_argument("--teacher", type=Path, default=ROOT / "examples/resnet20-cifar10/teacher")
    parser.add_argument("--data", type=Path, default=ROOT / "data/cifar10", help="what `make cifar10` fetched")
    parser.add_argument("--pruning", choices=networks.PRUNING, default=networks.USUAL_PRUNING, help="which weights go")
    parser.add_argument("--guide", choices=networks.GUIDES, default=networks.USUAL_GUIDE, help="what pruning looks at")
    parser.add_argument("--rounds", type=int, default=1, help="prune in so many, recovered in between")
    parser.add_argument("--schedule", choices=networks.SCHEDULES, default=networks.USUAL_SCHEDULE, help="of rounds")
    parser.add_argument("--num-images", type=int, default=networks.USUAL_NUM_IMAGES, help="how many dreams")
    parser.add_argument("--iterations", type=int, default=networks.USUAL_ITERATIONS, help="how long each is made")
    parser.add_argument("--coarsest", type=int, default=networks.USUAL_COARSEST, help="where their pyramid ends")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--rows", nargs="+", choices=networks.ROWS, default=list(networks.ROWS))
    parser.add_argument("--workers", type=int, default=2, help="cells measured at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads per worker")
    parser.add_argument("--table", action="store_true", help="measure nothing, print the table")
    options = parser.parse_args()
    paths = (options.teacher, options.data)
    criterion = (options.pruning, options.guide, options.rounds, options.schedule)
    dreams = (options.num_images, options.iterations, options.coarsest)
    setting = Setting(options.name, *paths, options.threads, *criterion, *dreams)
    if options.guide != networks.USUAL_GUIDE and not setting.section(0.5).looks_at_images:
        parser.error(f"--guide: {options.pruning} looks at no images")
    if not options.table:
        run(setting, range(options.seeds), options.sparsities, options.rows, options.workers)
    print(networks.network([json.loads(setting.results.read_text())]))


if __name__ == "__main__":
    main()
