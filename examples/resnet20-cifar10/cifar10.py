"""What CIFAR-10 is: its classes, how its images are normalised, and its packed files."""

from __future__ import annotations

from pathlib import Path

from resprout.datasets import load_labelled
from resprout.errors import DatasetError
from resprout.types import InputSpec, LabelledImages, ModelInfo

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
INPUT = InputSpec((3, 32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "data" / "cifar10"


def packed_path(folder: Path, part: str) -> Path:
    """Where the `train` or the `test` part lies."""
    return folder / f"{part}.safetensors"


def load(folder: Path, part: str) -> LabelledImages:
    """The `train` or the `test` part, in the data set's original order.

    Raises:
        DatasetError: it is not there, or cannot be read.
    """
    if not packed_path(folder, part).exists():
        raise DatasetError(
            f"there is no {packed_path(folder, part)}",
            now="fetch it: python examples/resnet20-cifar10/fetch_cifar10.py",
        )
    info = ModelInfo("cifar_resnet20", len(CLASS_NAMES), INPUT, CLASS_NAMES)
    return load_labelled(packed_path(folder, part), info=info)
