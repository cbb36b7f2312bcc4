"""The tables of results are what the committed measurements say."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def test_no_table_is_older_than_its_measurement(tables: ModuleType) -> None:
    for path, text in tables.documents().items():
        assert path.read_text() == text, f"{path.name} is stale: run `make format`"


def test_a_table_gives_mean_and_deviation_of_the_seeds_that_were_measured(tables: ModuleType) -> None:
    machine = {"cores": 2, "processor": "a processor", "capability": "AVX512", "gpu": "none", "torch": "2.14.1"}
    cells = [
        {"row": "none", "sparsity": 0.5, "seed": 0, "top1": 80.0},
        {"row": "ours", "sparsity": 0.5, "seed": 0, "top1": 90.0},
        {"row": "ours", "sparsity": 0.5, "seed": 1, "top1": 92.0},
        {"row": "ours", "sparsity": 0.9, "seed": 0, "top1": 85.5},
    ]
    document = {"name": "net", "teacher_top1": 93.0, "num_images": 1024, "machine": machine, "cells": cells}
    lines = tables.networks.table([document]).splitlines()
    assert lines[2] == "| which weights go | what brings accuracy back | seeds | 50 % | 90 % |"
    ours = f"| global L1 | {tables.networks.ROWS['ours']} | 2 | 91.00 ± 1.41 | 85.50 (1) |"
    assert lines[4:] == ["| global L1 | nothing | 1 | 80.00 |  |", ours]


def test_a_table_says_what_was_measured_on_another_machine(tables: ModuleType) -> None:
    machine = {"cores": 2, "processor": "a processor", "capability": "AVX512", "gpu": "none", "torch": "2.14.1"}
    cells = [{"row": "ours", "sparsity": 0.5, "seed": 0, "top1": 90.0}]
    here = {"name": "net", "teacher_top1": 93.0, "num_images": 1024, "machine": machine, "cells": cells}
    there = {**here, "machine": machine | {"capability": "AVX2"}}
    documents = [here, {**there, "pruning": "fisher"}, {**here, "pruning": "lamp"}, {**there, "pruning": "taylor"}]
    assert (
        tables.networks.table(documents)
        .splitlines()[0]
        .endswith(
            "is said. 2 cores of a processor (AVX512), no GPU, torch 2.14.1. "
            "Taylor; Fisher: 2 cores of a processor (AVX2), no GPU, torch 2.14.1."
        )
    )


def test_a_network_has_one_table_and_the_commands_that_made_it(tables: ModuleType) -> None:
    machine = {"cores": 2, "processor": "a processor", "capability": "AVX512", "gpu": "none", "torch": "2.14.1"}
    cells = [{"row": "ours", "sparsity": 0.9, "seed": 0, "top1": 80.0}]
    document = {"name": "net", "teacher_top1": 93.0, "num_images": 1024, "machine": machine, "cells": cells}
    rounds = {**document, "pruning": "lamp", "rounds": 3}
    guided = {**document, "pruning": "fisher", "guide": "real"}
    geometric, more = {**rounds, "schedule": "geometric"}, {**document, "num_images": 4096}
    plain, longer = {**document, "coarsest": 4}, {**more, "iterations": 100, "coarsest": 4}
    trained = {**more, "epochs": 120, "batch_size": 256}
    (made,) = tables.networks.by_network([longer, trained, more, plain, geometric, rounds, document, guided])
    lines = made.splitlines()
    assert [line.split(" | ")[0] for line in lines[6:14]] == [
        "| global L1",
        "| Fisher on real training images (not data-free)",
        "| LAMP, 3 rounds",
        "| LAMP, 3 geometric rounds",
        "| global L1, plain dreams",
        "| global L1, 4,096 dreams",
        "| global L1, 4,096 dreams, 120 epochs, batches of 256",
        "| global L1, 4,096 plain dreams, 100 iterations",
    ]
    common = "python benchmarks/recovery.py --name net"
    measured = "--sparsities 0.9 --rows ours --seeds 1"
    assert lines[-9:-1] == [
        f"{common} {measured}",
        f"{common} --pruning fisher --guide real {measured}",
        f"{common} --pruning lamp --rounds 3 {measured}",
        f"{common} --pruning lamp --rounds 3 --schedule geometric {measured}",
        f"{common} --coarsest 4 {measured}",
        f"{common} --num-images 4096 {measured}",
        f"{common} --num-images 4096 --epochs 120 --batch-size 256 {measured}",
        f"{common} --num-images 4096 --iterations 100 --coarsest 4 {measured}",
    ]


def test_an_ablation_has_a_row_with_what_its_seeds_gave(tables: ModuleType) -> None:
    machine = {"cores": 2, "processor": "a processor", "capability": "AVX512", "gpu": "none", "torch": "2.14.1"}
    other = machine | {"cores": 4}

    def cell(name: str, seed: int, recovered: float, on: dict[str, object]) -> dict[str, object]:
        top1 = {"teacher": 92.0, "pruned": 12.0, "repaired": 40.0, "recovered": recovered}
        settings = {"pruning": {"method": "lamp", "sparsity": 0.9}}
        return {
            "name": name, "seed": seed, "machine": on, "num_test_images": 10_000, "settings": settings,
            "top1": top1, "agreement": {"recovered": 75.0}, "kl_divergence": {"recovered": 0.25},
        }  # fmt: skip

    cells = [cell("bn-frozen", 0, 70.0, machine), cell("baseline", 0, 79.0, machine)]
    cells += [cell("baseline", 1, 81.0, machine), cell("temperature-1", 0, 60.0, other)]
    made = tables.ablations(cells)
    assert len(made) == 2, "machines are not mixed"
    rows = [line for line in made[0].splitlines() if "`" in line]
    assert rows == [
        "| baseline (`baseline`) | 2 | 12.00 | 40.00 | 80.00 ± 1.41 | 75.00 | 0.250 |",
        "| BatchNorm frozen (`bn-frozen`) | 1 | 12.00 | 40.00 | 70.00 | 75.00 | 0.250 |",
    ]
    assert "lamp at 90 %" in made[0]
    assert tables.ablations([]) == []


def test_every_ablation_that_comes_along_has_a_name_in_the_table(tables: ModuleType) -> None:
    assert set(tables.ABLATIONS) == {path.stem for path in (ROOT / "recipes" / "ablations").glob("*.yaml")}


def test_what_stands_between_the_markers_is_replaced_and_nothing_else(tables: ModuleType) -> None:
    text = "before <!-- a:begin -->old<!-- a:end --> after"
    assert tables.written(text, "a", ["new"]) == "before <!-- a:begin -->\nnew\n<!-- a:end --> after"


def test_other_dreams_are_held_against_the_default_seed_by_seed(tables: ModuleType) -> None:
    machine = {"cores": 2, "processor": "a processor", "capability": "AVX512", "gpu": "none", "torch": "2.14.1"}
    top1 = {("default", 0): 84.0, ("default", 1): 85.0, ("fresh", 1): 84.5}
    cells = [{"case": case, "seed": seed, "top1": value} for (case, seed), value in top1.items()]
    made = tables.hard_cases({"name": "net", "sparsity": 0.9, "machine": machine, "cells": cells})
    assert made.splitlines()[-2:] == [
        f"| {tables.HARD_CASES['default']} (`default`) | 84.50 ± 0.71 |  |",
        f"| {tables.HARD_CASES['fresh']} (`fresh`) | 84.50 | -0.50 |",
    ]


def test_images_are_not_called_dreams(tables: ModuleType) -> None:
    real = {"pruning": "fisher", "guide": "real", "num_images": 4096, "iterations": 100}
    assert tables.networks.criterion(real) == "Fisher on real training images (not data-free), 4,096 images"
