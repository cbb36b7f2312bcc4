"""Recovery where much is missing: what other dreams than the default's bring back, each alone, and a generator.

    python benchmarks/hard_cases.py                            # ResNet-20 at 90 %, 3 seeds; resumes where it stopped
    python benchmarks/hard_cases.py fresh features --seeds 1
    python benchmarks/tables.py                                # the table in docs/results.md, from what was measured

Each student lost the same weights (the default criterion, on the seed's default dreams), is trained for as many steps
from the same start, and is judged on the 10,000 CIFAR-10 test images. Every cell is kept as soon as it is measured, in
benchmarks/results/MACHINE/hard-cases-resnet20.json. No case but the first is a default.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import machine
import torch
from cells import ROOT, Setting, accuracy, make_dreams, results_folder
from torch import Tensor, nn
from torch.nn import functional

from resprout import artifacts, datasets, precision, statistics
from resprout.batchnorm import capture_moments
from resprout.files import write_atomically
from resprout.pruning import prune
from resprout.recipe import DeepInversionSection, DistillationSection, OptimalBrainSection
from resprout.recovery import recover
from resprout.seeding import generator
from resprout.synthesis import deep_inversion, losses, synthesize
from resprout.synthesis.groups import Group, GroupResult
from resprout.types import BNStatistics, DreamSet, InputSpec, LabelledImages, LayerStatistics, Student, Teacher

SPARSITY = 0.9
EPOCHS = DistillationSection().epochs
STATISTICS_NOISE = 0.05
"""In a channel's standard deviations. Means of 128 photographs differ from those of all by 0.01 to 0.06: by how much
images differ from each other (diversity.py), over the root of 128."""
DIVERSITY_WEIGHT = 0.1
GENERATOR_STEPS = 2000


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every cell of a seed is measured with."""

    teacher: Teacher
    test: LabelledImages
    dreams: DreamSet
    pruned: Student
    seed: int

    def synthesized(self, seed: int | None = None, **fields: Any) -> DreamSet:
        section = DeepInversionSection(**fields)
        found = statistics.extract(self.teacher)
        return synthesize(self.teacher, found, section, seed=self.seed if seed is None else seed)

    def other_seed(self) -> int:
        """One that no cell's own dreams are made with."""
        return 1000 + self.seed

    def distilled(self, dreams: DreamSet, student: Student | None = None, epochs: int = EPOCHS) -> Student:
        section = DistillationSection(epochs=epochs, start="repaired")
        return recover(self.teacher, student or self.pruned, dreams, section, seed=self.seed).recovered


def as_they_are(bench: Bench) -> Student:
    return bench.distilled(bench.dreams)


def other_half(bench: Bench) -> Student:
    """Half of the training on other dreams."""
    first = bench.distilled(bench.dreams, epochs=EPOCHS // 2)
    return bench.distilled(bench.synthesized(bench.other_seed()), first, EPOCHS // 2)


def large_groups(bench: Bench) -> Student:
    """Dreams that match the statistics 256 together."""
    return bench.distilled(bench.synthesized(group_size=256))


def several_statistics(bench: Bench) -> Student:
    """Each group of dreams matches statistics of its own, near the teacher's."""
    original = deep_inversion.synthesize_group

    def with_its_own(
        network: nn.Module,
        found: BNStatistics,
        space: InputSpec,
        num_classes: int,
        section: DeepInversionSection,
        group: Group,
        **named: Any,
    ) -> GroupResult:
        draws = generator(bench.seed, "hard-cases", group.index)
        near = BNStatistics(tuple(_near(layer, draws) for layer in found.layers))
        return original(network, near, space, num_classes, section, group, **named)

    with mock.patch.object(deep_inversion, "synthesize_group", with_its_own):
        return bench.distilled(bench.synthesized())


def _near(layer: LayerStatistics, draws: torch.Generator) -> LayerStatistics:
    by_mean, by_variance = (
        STATISTICS_NOISE * torch.randn(layer.mean.shape, generator=draws).to(layer.mean.device) for _ in range(2)
    )
    return dataclasses.replace(
        layer, mean=layer.mean + by_mean * layer.variance.sqrt(), variance=layer.variance * by_variance.exp()
    )


def diverse_features(bench: Bench) -> Student:
    """Dreams whose features before the last layer repel each other (uniformity, Eq. 2, arXiv 2005.10242)."""
    original = deep_inversion._objective

    def objective(network: nn.Module, *further: Any) -> Any:
        inner = original(network, *further)
        seen: dict[str, Tensor] = {}
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_pre_hook(lambda _, inputs: seen.__setitem__("features", inputs[0]))

        def terms(images: Tensor) -> dict[str, Tensor]:
            weighted = dict(inner(images))
            weighted["uniformity"] = DIVERSITY_WEIGHT * _uniformity(seen["features"].float())
            return weighted

        return terms

    with mock.patch.object(deep_inversion, "_objective", objective):
        return bench.distilled(bench.synthesized())


def _uniformity(features: Tensor) -> Tensor:
    directions = functional.normalize(features, dim=1)
    near = (-2 * (2 - 2 * directions @ directions.T)).exp()
    count = len(features)
    return ((near.sum() - count) / (count * (count - 1))).log()  # less each with itself, which is 1


def generated(bench: Bench) -> Student:
    """As many images of a generator that learnt to match the statistics, in place of dreams."""
    return bench.distilled(_from_generator(bench, len(bench.dreams.training[0])))


def generated_anew(bench: Bench) -> Student:
    """Images of that generator, each seen once."""
    return bench.distilled(_from_generator(bench, EPOCHS * len(bench.dreams.training[0])), epochs=1)


class Generator(nn.Module):
    """Images of classes from noise: a class's and a noise vector at 4x4, doubled in size three times.

    Args:
        lower, upper: what a pixel can be after normalisation, shape (1, 3, 1, 1).
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, num_classes: int, lower: Tensor, upper: Tensor, width: int = 64, latent: int = 128) -> None:
        super().__init__()
        self.embedding, self.first = nn.Embedding(num_classes, latent), nn.Linear(2 * latent, 2 * width * 16)
        widths = [2 * width, 2 * width, width, width, width // 2]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before + NOISE_CHANNELS, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.SiLU()
            )
            for before, after in itertools.pairwise(widths)
        )
        self.last = nn.Conv2d(width // 2, 3, 3, padding=1)
        self.register_buffer("lower", lower)
        self.register_buffer("upper", upper)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        x = self.first(torch.cat([noise, self.embedding(labels)], 1)).unflatten(1, (-1, 4, 4))
        for index, block in enumerate(self.blocks):
            if index:
                x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, torch.randn(len(x), NOISE_CHANNELS, *x.shape[2:], device=x.device)], 1))
        pixels: Tensor = self.last(x).sigmoid()
        return self.lower + (self.upper - self.lower) * pixels


NOISE_CHANNELS = 4


def _from_generator(bench: Bench, count: int, batch: int = 128) -> DreamSet:
    torch.manual_seed(bench.seed)
    device, space = precision.best_device(), bench.teacher.info.input
    lower, upper = (space.normalise(torch.full((1, 3, 1, 1), value)) for value in (0.0, 1.0))
    made = Generator(bench.teacher.info.num_classes, lower, upper).to(device)
    labels = (torch.arange(batch) % bench.teacher.info.num_classes).to(device)
    _trained(made, bench.teacher, labels, device)
    held_out = bench.dreams.num_held_out
    with torch.no_grad():
        batches = [made(torch.randn(batch, 128, device=device), labels).half().cpu() for _ in range(-(-count // batch))]
    images = torch.cat([torch.cat(batches)[:count], bench.dreams.held_out[0]])
    targets = torch.cat([labels.cpu().repeat(len(batches))[:count], bench.dreams.held_out[1]])
    return DreamSet(images, targets, held_out, bench.teacher.info.num_classes)


def _trained(made: Generator, teacher: Teacher, labels: Tensor, device: torch.device) -> None:
    network = precision.frozen_copy(teacher.network, torch.float32, device)
    target = statistics.extract(teacher).to(device)
    optimizer = torch.optim.Adam(made.parameters(), lr=2e-3, betas=(0.5, 0.99))
    section = DeepInversionSection()
    with capture_moments(network) as moments:
        for step in range(GENERATOR_STEPS):
            decay = 0.5 * (1 + math.cos(math.pi * step / GENERATOR_STEPS))
            optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 50) * decay
            images = made(torch.randn(len(labels), 128, device=device), labels)
            down, right = torch.randint(-2, 3, (2,)).tolist()
            logits = network(images.roll((down, right), (2, 3)))
            distance = losses.normalised_batch_norm_distance(*losses.matched(moments, target))
            loss = section.batch_norm_weight * distance + section.target_weight * functional.cross_entropy(
                logits, labels
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


CASES: dict[str, Callable[[Bench], Student]] = {
    "default": as_they_are,
    "fresh": other_half,
    "group-256": large_groups,
    "statistics": several_statistics,
    "features": diverse_features,
    "generator": generated,
    "generator-anew": generated_anew,
}


def bench_of(setting: Setting, seed: int) -> Bench:
    """A seed's dreams, and the student that they prune."""
    make_dreams(setting, "ours", seed)
    dreams = artifacts.load_dreams(setting.dreams("ours", seed))
    teacher = artifacts.load_teacher(setting.teacher)
    test = datasets.load_labelled(setting.data / "test.safetensors", info=teacher.info)
    pruned = prune(teacher, OptimalBrainSection(sparsity=SPARSITY), seed=seed, dreams=dreams)
    return Bench(teacher, test, dreams, pruned, seed)


def read(path: Path, setting: Setting) -> dict[str, Any]:
    """What has been measured of this teacher with today's defaults."""
    recovery = DistillationSection(start="repaired").model_dump(mode="json")
    pruning = OptimalBrainSection(sparsity=SPARSITY).model_dump(mode="json")
    recipe = {"synthesis": setting.synthesis("ours").model_dump(mode="json"), "pruning": pruning, "recovery": recovery}
    nothing = {
        "name": setting.name,
        "teacher": artifacts.digest_of(setting.teacher),
        "machine": machine.describe(),
        "sparsity": SPARSITY,
        "recipe": recipe,
        "cells": [],
    }
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else nothing
    return document if all(document[what] == nothing[what] for what in ("teacher", "recipe")) else nothing


def keep(path: Path, document: dict[str, Any], cell: dict[str, Any]) -> None:
    """Add a cell, and write at once."""
    document["cells"].append(cell)
    document["cells"].sort(key=lambda each: (list(CASES).index(each["case"]), each["seed"]))
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def run(setting: Setting, cases: Sequence[str], seeds: int) -> None:
    """Measure what is missing, and keep each cell at once."""
    torch.set_num_threads(setting.threads)
    path = results_folder() / "hard-cases-resnet20.json"
    document = read(path, setting)
    for seed in range(seeds):
        done = {cell["case"] for cell in document["cells"] if cell["seed"] == seed}
        missing = [case for case in cases if case not in done]
        if not missing:
            continue
        bench = bench_of(setting, seed)
        for case in missing:
            started = time.monotonic()
            student = CASES[case](bench)
            top1 = accuracy(dataclasses.replace(bench.teacher, network=student.network), bench.test)
            cell = {"case": case, "seed": seed, "top1": top1, "seconds": round(time.monotonic() - started, 1)}
            print(cell, flush=True)
            keep(path, document, cell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=ROOT / "data/cifar10", help="what `make cifar10` fetched")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    setting = Setting("resnet20", ROOT / "examples/resnet20-cifar10/teacher", options.data, options.threads)
    run(setting, options.cases or list(CASES), options.seeds)


if __name__ == "__main__":
    main()
