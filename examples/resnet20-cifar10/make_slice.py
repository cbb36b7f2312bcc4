"""Make test2000/: the first 200 test images of each class, as PNG, one folder per class.

    python examples/resnet20-cifar10/make_slice.py [--data data/cifar10] [--out examples/resnet20-cifar10/test2000]

A file is named by its image's index in the CIFAR-10 test set, so that anyone can find it there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar10 import CLASS_NAMES, DEFAULT_FOLDER, load
from PIL import Image

from resprout.errors import ResproutError
from resprout.types import LabelledImages


def make_slice(test: LabelledImages, folder: Path, per_class: int = 200) -> int:
    """Write the first `per_class` images of each class to `folder`/CLASS/INDEX.png. Returns how many were written."""
    written = 0
    for label, name in enumerate(test.class_names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in (test.labels == label).nonzero().flatten()[:per_class].tolist():
            pixels = test.images[index].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / name / f"{index:04d}.png", optimize=True)
            written += 1
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the class-balanced slice of CIFAR-10's test set.")
    parser.add_argument("--data", type=Path, default=DEFAULT_FOLDER, help="the packed data set (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "test2000", help="%(default)s")
    options = parser.parse_args(arguments)
    try:
        test = load(options.data, "test")
    except ResproutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {make_slice(test, options.out):,} images of {len(CLASS_NAMES)} classes to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
