"""What each choice is good for: the recipes in recipes/ablations, judged on the full CIFAR-10 test set.

    python benchmarks/ablations.py                         # every recipe, 1 seed; resumes where it stopped
    python benchmarks/ablations.py bn-frozen --seeds 3     # some recipes, more seeds
    python benchmarks/tables.py                            # the table in docs/results.md, from what was measured

Every cell is kept as soon as it is measured, in benchmarks/results/ablations/MACHINE/NAME-SEED.json, where MACHINE is
cuda or the processor's instructions, since recipes are compared on one kind of machine; one that another recipe or
other defaults gave is measured anew. Without data/cifar10 (`make cifar10`), the 2,000 images of the example judge.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import machine
import tables
import torch

from resprout import artifacts, datasets, recipe, statistics
from resprout.checkpoints import fingerprint
from resprout.evaluation import evaluate
from resprout.files import write_atomically
from resprout.pruning import prune
from resprout.recipe import Recipe
from resprout.recovery import recover
from resprout.rounds import prune_on_dreams
from resprout.synthesis import synthesize
from resprout.types import DreamSet, LabelledImages, Teacher

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes" / "ablations"
RESULTS = ROOT / "benchmarks" / "results" / "ablations"
WORK = ROOT / "runs" / "benchmark-resnet20"
FULL_TEST_SET = ROOT / "data" / "cifar10" / "test.safetensors"
FIELDS = {"synthesis", "pruning", "recovery"}


def cell_of(name: str, seed: int) -> Path:
    """Where a recipe's result of a seed is kept."""
    return RESULTS / machine.kind() / f"{name}-{seed}.json"


def settings_of(chosen: Recipe) -> dict[str, Any]:
    """What the result depends on, besides the teacher and the seed."""
    return chosen.model_dump(mode="json", include=FIELDS)


def is_measured(name: str, chosen: Recipe, seed: int) -> bool:
    """Whether these settings have a result already."""
    path = cell_of(name, seed)
    return path.exists() and json.loads(path.read_text())["settings"] == settings_of(chosen)


def dreams_for(chosen: Recipe, teacher: Teacher, seed: int) -> tuple[DreamSet, float]:
    """The dreams of these settings and this seed, synthesized once; and the seconds that took."""
    directory = WORK / f"dreams-ours-{seed}-{fingerprint(chosen.synthesis.model_dump())[:8]}"
    started = time.monotonic()
    if not (directory / artifacts.MANIFEST).exists():
        made = synthesize(teacher, statistics.extract(teacher), chosen.synthesis, seed=seed)
        section = chosen.synthesis.model_dump(mode="json")
        artifacts.save_dreams(made, directory, input=teacher.info.input, section=section, seed=seed)
    return artifacts.load_dreams(directory), time.monotonic() - started


def measure(name: str, chosen: Recipe, seed: int, teacher: Teacher, test: LabelledImages) -> dict[str, Any]:
    """One cell: what comes of a recipe with a seed; shares in percent, KL in nats."""
    dreams, synthesis_seconds = dreams_for(chosen, teacher, seed)
    started = time.monotonic()
    if chosen.pruning.needs_dreams:
        pruned = prune_on_dreams(teacher, dreams, chosen.pruning, chosen.recovery, seed=seed).student
    else:
        pruned = prune(teacher, chosen.pruning, seed=seed)
    result = recover(teacher, pruned, dreams, chosen.recovery, seed=seed)
    recovery_seconds = time.monotonic() - started
    students = {"pruned": pruned, "repaired": result.repaired, "recovered": result.recovered}
    scores = {score.name: score for score in evaluate(teacher, students, dreams, test).scores}
    return {
        "name": name,
        "seed": seed,
        "settings": settings_of(chosen),
        "teacher": artifacts.digest_of(ROOT / chosen.teacher.source),
        "num_test_images": len(test.images),
        "top1": {who: round(100 * (score.top1 or 0), 2) for who, score in scores.items()},
        "agreement": {who: round(100 * (score.agreement or 0), 2) for who, score in scores.items()},
        "kl_divergence": {who: round(score.kl_divergence or 0, 4) for who, score in scores.items()},
        "synthesis_seconds": round(synthesis_seconds, 1),
        "recovery_seconds": round(recovery_seconds, 1),
        "machine": machine.describe(),
    }


def run(names: list[str], seeds: int, threads: int) -> None:
    """Measure what is missing, and keep each cell at once."""
    torch.set_num_threads(threads)
    recipes = {name: recipe.load(RECIPES / f"{name}.yaml") for name in names}
    teacher = artifacts.load_teacher(ROOT / recipes[names[0]].teacher.source)
    data = FULL_TEST_SET if FULL_TEST_SET.exists() else ROOT / str(recipes[names[0]].evaluation.data)
    test = datasets.load_labelled(data, info=teacher.info)
    for seed in range(seeds):
        for name, chosen in recipes.items():
            if is_measured(name, chosen, seed):
                continue
            cell = measure(name, chosen, seed, teacher, test)
            with write_atomically(cell_of(name, seed)) as path:
                path.write_text(json.dumps(cell, indent=1) + "\n")
            print(name, seed, cell["top1"], f"{cell['recovery_seconds']:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="RECIPE", help="of recipes/ablations; default: all of them")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    unknown = set(options.names) - set(tables.ABLATIONS)
    if unknown:
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}; there are {', '.join(tables.ABLATIONS)}")
    run(options.names or list(tables.ABLATIONS), options.seeds, options.threads)


if __name__ == "__main__":
    main()
