"""Train the further CIFAR-10 teachers that the benchmarks recover, with the example's trainer as it is.

    python benchmarks/teachers/train.py resnet18              # one of TEACHERS; further options go to the trainer

A teacher ends in benchmarks/teachers/NAME, in the form that a recipe's `teacher.source` takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TRAINER = HERE.parents[1] / "examples" / "resnet20-cifar10" / "train.py"


@dataclass(frozen=True)
class Plan:
    """What the trainer is told about one teacher; everything else stays as it was for the ResNet-20."""

    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    epochs: int = 30
    small_share: float = 0.5


TEACHERS = {
    # a GPU's work: minutes there, many hours of two cores
    "resnet18": Plan("cifar_resnet18"),
    "vgg16_bn": Plan("cifar_vgg16_bn", small_share=0.0),
    "mobilenet_v2": Plan("cifar_mobilenet_v2", epochs=20, small_share=0.0),
    # five max-pools leave nothing of a 24x24 image
    "vgg11_half": Plan("cifar_vgg11_bn", {"width": 0.5}, small_share=0.0),
    # torchvision's own with strides for 32x32: 16x16 after the stem, 4x4 at the end; a third of what cifar_mobilenet_v2
    # costs
    "mobilenet_v2_half": Plan(
        "mobilenet_v2",
        {
            "width_mult": 0.5,
            "inverted_residual_setting": [
                [1, 16, 1, 1],
                [6, 24, 2, 1],
                [6, 32, 3, 2],
                [6, 64, 4, 2],
                [6, 96, 3, 1],
                [6, 160, 3, 1],
                [6, 320, 1, 1],
            ],
        },
        epochs=12,
        small_share=0.0,
    ),
}


def command(name: str, further: Sequence[str] = ()) -> list[str]:
    """The trainer's command line for the teacher called `name`; `further` options come last, and win."""
    plan = TEACHERS[name]
    options = {
        "--architecture": plan.architecture,
        "--arguments": json.dumps(plan.arguments),
        "--epochs": str(plan.epochs),
        "--small-share": str(plan.small_share),
        "--out": str(HERE / name),
        "--checkpoint": str(Path.home() / ".cache" / "resprout" / f"{name}.pt"),
    }
    return [sys.executable, str(TRAINER), *(word for pair in options.items() for word in pair), *further]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train a further CIFAR-10 teacher.")
    parser.add_argument("name", choices=TEACHERS)
    options, further = parser.parse_known_args(arguments)
    return subprocess.run(command(options.name, further), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
