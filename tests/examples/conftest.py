"""The example's scripts import their neighbours by name, as a script does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "resnet20-cifar10"
sys.path.insert(0, str(EXAMPLE))

import cifar10  # noqa: E402


@pytest.fixture(scope="session")
def example() -> Path:
    return EXAMPLE


@pytest.fixture(scope="session")
def packed_cifar10() -> Path:
    folder = cifar10.DEFAULT_FOLDER
    if not all(cifar10.packed_path(folder, part).exists() for part in ("train", "test")):
        pytest.skip(f"there is no CIFAR-10 in {folder}; `make cifar10` fetches it")
    return folder
