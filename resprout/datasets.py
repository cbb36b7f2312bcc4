"""Labelled images: a folder with one folder of images per class, or one packed .safetensors file.

Images come out in the teacher's input shape, as uint8 pixels. One of another size is scaled (bicubic, antialiased)
until it just covers that shape, and centre-cropped; grey and colour are converted to what the teacher takes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from resprout.errors import DatasetError
from resprout.files import write_atomically
from resprout.progress import Report, silent
from resprout.recipe import EvaluationSection
from resprout.types import InputSpec, LabelledImages, ModelInfo, Stored

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_MODES = {1: "L", 3: "RGB"}

Choose = Callable[[Tensor], Tensor]
"""From all labels, int64 (n,), to the indices of the images to take, in the order to take them in."""


def load_labelled(path: str | Path, *, info: ModelInfo, max_images: int | None = None) -> LabelledImages:
    """Read a labelled test set.

    Args:
        path: a folder of class folders (searched recursively; other files are ignored), or a file that
            `save_labelled` wrote.
        info: the teacher's; folders are matched to its class names. Where these are the default "0", "1", … and
            the folders are called otherwise, the folders count in sorted order, as in torchvision's ImageFolder.
        max_images: keep this many, as many of each class as of any other where there are enough, evenly spread
            over each class; the same ones each time. None: all.

    Returns:
        Images in the teacher's input shape, sorted by class folder and name, or in the file's order.

    Raises:
        DatasetError: missing, empty, a class that the teacher does not know, an image or file that cannot be read.
    """
    return load_chosen(path, info=info, choose=partial(evenly_spread, max_images=max_images))


def load_chosen(path: str | Path, *, info: ModelInfo, choose: Choose) -> LabelledImages:
    """Read some of a labelled set's images; of a folder, no other is opened.

    Args:
        path, info: as for `load_labelled`.
        choose: gets all labels, as the teacher numbers them, in the order of class folder and name or of the file;
            says which to take.

    Raises:
        DatasetError: as `load_labelled`, and what `choose` raises.
    """
    path = Path(path)
    if path.exists() and not os.access(path, os.R_OK):
        raise DatasetError(
            f"{path} may not be read by user {os.getuid()}",
            why="in a container, a stage is never root",
            now=f"chmod -R a+rX {path}",
        )
    if path.is_dir():
        return _load_folder(path, info, choose)
    if path.is_file():
        return _load_packed(path, info, choose)
    raise DatasetError(
        f"there are no labelled images at {path}",
        now="give a folder with one folder of images per class, or a packed .safetensors; "
        "evaluation.data may also be left out, to judge on held-out dreams alone",
    )


def fetch(
    section: EvaluationSection, *, info: ModelInfo, stored: Stored, report: Report = silent
) -> LabelledImages | None:
    """The labelled test set that a section names, wherever it is; None where it names none.

    Args:
        section: the recipe's evaluation section.
        info: the teacher's, which it must fit.
        stored: fetches what lies at an s3:// address into a folder and returns where it is then.
        report: is told how far that is.

    Raises:
        DatasetError: as `load_labelled`.
    """
    if section.data is None:
        return None
    choose = partial(evenly_spread, max_images=section.max_images)
    return fetch_chosen(section.data, info=info, choose=choose, stored=stored, report=report)


def fetch_chosen(
    data: str, *, info: ModelInfo, choose: Choose, stored: Stored, report: Report = silent
) -> LabelledImages:
    """Some of a labelled set's images, wherever it is; the arguments are those of `load_chosen` and of `fetch`."""
    if not data.startswith("s3://"):
        return load_chosen(data, info=info, choose=choose)
    with tempfile.TemporaryDirectory(prefix="resprout-") as folder:
        path = stored(data, Path(folder), report)
        return replace(load_chosen(path, info=info, choose=choose), source=data)


def save_labelled(images: LabelledImages, path: str | Path) -> None:
    """Write a labelled test set as one .safetensors file, whole or not at all.

    It holds `images` (uint8, (n, channels, height, width)), `labels` (int64, (n,)) and, in the metadata,
    `class_names` as a JSON list.
    """
    tensors = {"images": images.images.contiguous(), "labels": images.labels.contiguous()}
    with write_atomically(Path(path)) as temporary:
        save_file(tensors, temporary, metadata={"class_names": json.dumps(list(images.class_names))})
        temporary.chmod(0o644)  # safetensors writes for the owner alone, and a stage may run as another user


def evenly_spread(labels: Tensor, max_images: int | None) -> Tensor:
    """Which images to keep: balanced over the classes as far as they go, evenly spaced within each.

    Args:
        labels: int64, shape (n,).
        max_images: None for all.

    Returns:
        Sorted int64 indices, shape (min(n, max_images),).
    """
    if max_images is None or max_images >= len(labels):
        return torch.arange(len(labels))
    _, sizes = labels.unique(return_counts=True)
    members = labels.argsort(stable=True).split(sizes.tolist())
    chosen = []
    # smallest class first: what it cannot give, the larger ones share
    for position, indices in enumerate(sorted(members, key=len)):
        share = min(len(indices), max_images // (len(members) - position))
        chosen.append(indices[torch.arange(share) * len(indices) // max(share, 1)])
        max_images -= share
    return torch.cat(chosen).sort().values


def _load_folder(folder: Path, info: ModelInfo, choose: Choose) -> LabelledImages:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DatasetError(
            f"{folder} holds no class folders", now="give a folder with one folder of images per class, by name"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for name, label in zip(names, _labels_of(names, info, folder), strict=True):
        found = _images_in(folder / name)
        paths += found
        labels += [label] * len(found)
    chosen = choose(torch.tensor(labels))
    images = torch.empty(len(chosen), *info.input.shape, dtype=torch.uint8)
    for position, index in enumerate(chosen.tolist()):
        images[position] = _read_image(paths[index], info.input)
    return LabelledImages(images, torch.tensor(labels)[chosen], info.class_names, str(folder))


def _images_in(folder: Path) -> list[Path]:
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise DatasetError(
            f"class folder {folder} holds no image",
            why="a class without images is most often a copy that went wrong",
            now=f"put images there ({', '.join(sorted(SUFFIXES))}), or remove the folder",
        )
    return found


def _labels_of(names: Sequence[str], info: ModelInfo, source: Path) -> list[int]:
    """The teacher's class number of each name."""
    known = {name: label for label, name in enumerate(info.class_names)}
    if all(name in known for name in names):
        return [known[name] for name in names]
    numbered = tuple(str(label) for label in range(info.num_classes))
    if info.class_names != numbered:
        unknown = next(name for name in names if name not in known)
        near = get_close_matches(unknown, known, n=1)
        raise DatasetError(
            f"{source} has a class {unknown!r} that the teacher does not know"
            + (f"; did you mean {near[0]!r}?" if near else ""),
            now=f"use the teacher's class names: {', '.join(info.class_names[:10])}"
            + (f", … ({info.num_classes} in all)" if info.num_classes > 10 else ""),
        )
    if len(names) != info.num_classes:
        raise DatasetError(
            f"{source} has {len(names)} classes, the teacher has {info.num_classes}",
            why="the teacher names no classes, so they can only be matched by their order, which needs all of them",
            now="set teacher.class_names in the recipe",
        )
    return list(range(info.num_classes))


def _read_image(path: Path, spec: InputSpec) -> Tensor:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"image {path} cannot be read: {error}", now="restore it, or remove it from the test set"
        ) from None
    if image.mode.startswith(("I", "F")):
        raise DatasetError(
            f"image {path} has more than 8 bits a channel (mode {image.mode})",
            why="cutting it down to 8 would need a scale that only you know",
            now="save it with 8 bits a channel, scaled as in training",
        )
    return _fit(image, spec, str(path))


def _fit(image: Image.Image, spec: InputSpec, source: str) -> Tensor:
    """Uint8 pixels of shape `spec.shape`."""
    channels, height, width = spec.shape
    if channels not in _MODES:
        raise DatasetError(
            f"{source} holds images of 1 or 3 channels, the teacher takes {channels}",
            now="pack the test set as .safetensors in the teacher's input shape",
        )
    # palettes and bit maps have no colours to interpolate between: convert first
    image = image.convert(_MODES[channels])
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), method=Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels.view(height, width, channels).permute(2, 0, 1)


def _load_packed(path: Path, info: ModelInfo, choose: Choose) -> LabelledImages:
    images, labels, names = _read_packed(path)
    names = info.class_names if names is None else names
    if not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        span = f"labels from {labels.min()} to {labels.max()}" if len(labels) else "no image"
        raise DatasetError(f"{path} holds {span}; {len(names)} classes need labels from 0 to {len(names) - 1}")
    labels = torch.tensor(_labels_of(names, info, path))[labels]
    chosen = choose(labels)
    images, labels = images[chosen], labels[chosen]
    if tuple(images.shape[1:]) != info.input.shape:
        images = torch.stack([_fit(_picture(image, path), info.input, str(path)) for image in images])
    return LabelledImages(images, labels, info.class_names, str(path))


def _read_packed(path: Path) -> tuple[Tensor, Tensor, tuple[str, ...] | None]:
    """Images, labels and class names of a file that `save_labelled` wrote, checked for type and shape."""
    try:
        with safe_open(path, framework="pt") as file:
            images, labels = file.get_tensor("images"), file.get_tensor("labels")
            names = (file.metadata() or {}).get("class_names")
            parsed = None if names is None else tuple(str(name) for name in json.loads(names))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise DatasetError(
            f"{path} is not a packed test set: {error}",
            now="write it with resprout.datasets.save_labelled, or give a folder with one folder of images per class",
        ) from None
    if (images.dtype, images.ndim, labels.dtype, labels.shape) != (torch.uint8, 4, torch.int64, images.shape[:1]):
        raise DatasetError(
            f"{path} holds {images.dtype} images {list(images.shape)} and {labels.dtype} labels {list(labels.shape)}",
            why="a packed test set is uint8 (n, channels, height, width) and int64 (n,)",
        )
    return images, labels, parsed


def _picture(image: Tensor, source: Path) -> Image.Image:
    mode = _MODES.get(image.shape[0])
    if mode is None:
        raise DatasetError(f"{source} holds images of {image.shape[0]} channels that do not fit the teacher's input")
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
