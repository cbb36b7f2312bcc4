"""One cell of the recovery benchmark: what a way to bring accuracy back reaches, at a sparsity, with a seed."""

from __future__ import annotations

import dataclasses
import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import machine
import networks
import torch

from resprout import artifacts, datasets, recipe, statistics, storage
from resprout.checkpoints import fingerprint
from resprout.collecting import collect
from resprout.evaluation import evaluate
from resprout.files import write_atomically
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


def results_folder() -> Path:
    """One for each kind of machine, so that they never overwrite or add to what another has measured."""
    return RESULTS / machine.kind()


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
    epochs: int = networks.USUAL_EPOCHS
    round_epochs: int = networks.USUAL_ROUND_EPOCHS
    batch_size: int = networks.USUAL_BATCH_SIZE
    start: str = networks.USUAL_START

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
        epochs = "" if self.epochs == networks.USUAL_EPOCHS else f"-{self.epochs}-epochs"
        between = "" if self.round_epochs == networks.USUAL_ROUND_EPOCHS else f"-{self.round_epochs}-between"
        batches = "" if self.batch_size == networks.USUAL_BATCH_SIZE else f"-batches-of-{self.batch_size}"
        start = "" if self.start == networks.USUAL_START else f"-{self.start}"
        what = f"{method}{guide}{rounds}{dreams}{iterations}{coarsest}{epochs}{between}{batches}{start}"
        return results_folder() / f"recovery-{self.name}{what}.json"

    def section(self, sparsity: float) -> PruningSection:
        fields = {
            "method": self.pruning,
            "sparsity": sparsity,
            "rounds": self.rounds,
            "schedule": self.schedule,
            "round_epochs": self.round_epochs or None,
        }
        section: PruningSection = recipe.section("pruning", fields)
        return section

    def recovery(self, row: str) -> RecoverySection:
        """How a row recovers; the epochs, the batch size and the start are those of distillation."""
        if row in ("reconstruction", "paper"):
            return ReconstructionSection() if row == "reconstruction" else PaperRecoverySection()
        section = PLAIN if row in ("plain", "plain_ceiling") else DistillationSection()
        return section.model_copy(update={"epochs": self.epochs, "batch_size": self.batch_size, "start": self.start})

    def prunes_on_dreams(self) -> bool:
        return self.section(0.5).looks_at_images and self.guide == networks.USUAL_GUIDE


def _load(setting: Setting) -> tuple[Teacher, LabelledImages]:
    torch.set_num_threads(setting.threads)
    return _loaded(setting.teacher, setting.data)


@lru_cache(maxsize=4)
def _loaded(folder: Path, data: Path) -> tuple[Teacher, LabelledImages]:
    teacher = artifacts.load_teacher(folder)
    return teacher, datasets.load_labelled(data / "test.safetensors", info=teacher.info)


def make_dreams(setting: Setting, method: str, seed: int) -> float:
    """Synthesize a set of dreams once, or find it; the seconds that took."""
    directory, section = setting.dreams(method, seed), setting.synthesis(method)
    if (directory / artifacts.MANIFEST).exists():
        return 0.0
    teacher, _ = _load(setting)
    started = time.monotonic()
    dreams = synthesize(teacher, statistics.extract(teacher), section, seed=seed)
    artifacts.save_dreams(
        dreams, directory, input=teacher.info.input, section=section.model_dump(mode="json"), seed=seed
    )
    return time.monotonic() - started


def measure(setting: Setting, row: str, sparsity: float, seed: int) -> dict[str, Any]:
    """One cell: the top-1 that `row` reaches at `sparsity`, in percent, and what its last training started from."""
    teacher, test = _load(setting)
    started = time.monotonic()
    pruned = _pruned(setting, row, teacher, sparsity, seed)
    student, start = _repaired(setting, row, teacher, pruned, seed)
    seconds = time.monotonic() - started
    return {
        "row": row,
        "sparsity": sparsity,
        "seed": seed,
        "top1": accuracy(dataclasses.replace(teacher, network=student.network), test),
        "seconds": round(seconds, 1),
        **({"start": start} if start else {}),
    }


def _pruned(setting: Setting, row: str, teacher: Teacher, sparsity: float, seed: int) -> Student:
    section = setting.section(sparsity)
    if setting.rounds == 1:
        return prune(teacher, section, seed=seed, dreams=_guide(setting, teacher, seed))
    images = _images_of(setting, row, teacher, seed)
    if images is None:
        raise SystemExit(f"--rounds: nothing is recovered on in the row {row}")
    return prune_on_dreams(teacher, images, section, setting.recovery(row), seed=seed).student


def _guide(setting: Setting, teacher: Teacher, seed: int) -> DreamSet | None:
    """What pruning looks at, where it looks at images."""
    if not setting.section(0.5).looks_at_images:
        return None
    if setting.prunes_on_dreams():
        return artifacts.load_dreams(setting.dreams("ours", seed))
    return _real_images(setting, seed)


def _repaired(setting: Setting, row: str, teacher: Teacher, pruned: Student, seed: int) -> tuple[Student, str | None]:
    if row == "none":
        return pruned, None
    if row == "noise":
        return repair(pruned, _noise(setting, teacher, seed)), None
    images = _images_of(setting, row, teacher, seed)
    assert images is not None
    if row == "dreams":
        return repair(pruned, images), None
    result = recover(teacher, pruned, images, setting.recovery(row), seed=seed)
    start = result.section.start if isinstance(result.section, DistillationSection) else None
    return result.recovered, start


def _images_of(setting: Setting, row: str, teacher: Teacher, seed: int) -> DreamSet | None:
    """What a row recovers on."""
    if row in ("none", "noise"):
        return None
    if row in ("ceiling", "plain_ceiling"):
        return _real_images(setting, seed)
    return artifacts.load_dreams(setting.dreams("paper" if row == "paper" else "ours", seed))


def _noise(setting: Setting, teacher: Teacher, seed: int) -> DreamSet:
    images = torch.randn(setting.num_images, *teacher.info.input.shape, generator=generator(seed, "noise"))
    return DreamSet(images.half(), torch.zeros(setting.num_images, dtype=torch.int64), 0, teacher.info.num_classes)


def _real_images(setting: Setting, seed: int) -> DreamSet:
    """As many real training images as there are dreams, held-out ones too, balanced over the classes."""
    return _collected(setting.teacher, setting.data, setting.num_images, seed)


@lru_cache(maxsize=2)
def _collected(folder: Path, data: Path, num_images: int, seed: int) -> DreamSet:
    section = ImagesSection(data=str(data / "train.safetensors"), num_images=num_images)
    return collect(section, info=_loaded(folder, data)[0].info, seed=seed, stored=storage.stored)


def accuracy(model: Teacher, test: LabelledImages) -> float:
    """A network's accuracy on the test set, in percent."""
    nothing = DreamSet(torch.zeros(0, *model.info.input.shape, dtype=torch.float16), torch.zeros(0).long(), 0, 10)
    top1 = evaluate(model, {}, nothing, test).score("teacher").top1
    assert top1 is not None
    return round(100 * top1, 2)


def teacher_top1(setting: Setting) -> float:
    """The teacher's own accuracy on the test set, in percent."""
    return accuracy(*_load(setting))


def read(setting: Setting) -> dict[str, Any]:
    """What has been measured of this teacher, less the cells that other defaults than today's gave."""
    synthesis = setting.synthesis("ours").model_dump(mode="json")
    settings = {"synthesis": synthesis, "recovery": setting.recovery("ours").model_dump()}
    told = setting.section(0.5).model_dump(exclude={"method", *PruningBase.model_fields})
    settings |= {"pruning": told} if told else {}
    nothing = {
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
        "epochs": setting.epochs,
        "round_epochs": setting.round_epochs,
        "batch_size": setting.batch_size,
        "start": setting.start,
        "recipe": settings,
        "cells": [],
    }
    document: dict[str, Any] = json.loads(setting.results.read_text()) if setting.results.exists() else nothing
    if document["teacher"] != nothing["teacher"]:
        return nothing
    if document["recipe"] != settings:
        still = FIXED_ROWS if document["recipe"].get("pruning") == settings.get("pruning") else set()
        document["recipe"] = settings
        document["cells"] = [cell for cell in document["cells"] if cell["row"] in still]
    return document


def write(setting: Setting, document: dict[str, Any]) -> None:
    document["cells"].sort(key=lambda cell: (cell["seed"], list(networks.ROWS).index(cell["row"]), cell["sparsity"]))
    with write_atomically(setting.results) as path:
        path.write_text(json.dumps(document, indent=1) + "\n")
