"""Labelled images: a folder with one folder of images per class, or one packed .safetensors file.

Classes are matched to the teacher's logits by name where it has names. Where it has none, folders count sorted as
text, as torchvision's ImageFolder has them. `LabelledImages.notes` says which class became which logit.

Images come out in the teacher's input shape, as uint8 pixels. One of another size is scaled (bicubic, antialiased)
until it just covers that shape, and centre-cropped; grey and colour are converted to what the teacher takes.
Of several frames the first is taken. The orientation in EXIF data is ignored, as torchvision does.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from resprout.datasets.classes import match, match_packed
from resprout.datasets.folders import class_folders, images_in, loose_images, notes_on, unreadable
from resprout.datasets.packed import read_packed, save_labelled
from resprout.datasets.pictures import Change, as_picture, fit, read_image, told
from resprout.errors import DatasetError
from resprout.progress import Report, silent
from resprout.recipe import EvaluationSection
from resprout.types import LabelledImages, ModelInfo, Stored

__all__ = ["Choose", "evenly_spread", "fetch", "fetch_chosen", "load_chosen", "load_labelled", "save_labelled"]

Choose = Callable[[Tensor], Tensor]
"""From all labels, int64 (n,), to the indices of the images to take, in the order to take them in."""


def load_labelled(path: str | Path, *, info: ModelInfo, max_images: int | None = None) -> LabelledImages:
    """Read a labelled test set.

    Args:
        path: a folder of class folders (searched recursively, through links too; other files are counted in the
            notes), or a file that `save_labelled` wrote.
        info: the teacher's; classes are matched to its class names, in any Unicode form. Where it has none, all its
            classes must be there, and count sorted as text.
        max_images: keep this many, as many of each class as of any other where there are enough, evenly spread
            over each class; the same ones each time. None: all.

    Returns:
        Images in the teacher's input shape, sorted by class folder and name, or in the file's order.

    Raises:
        DatasetError: missing, empty, a class that the teacher does not know or that is missing, folders above the
            class folders, an image or file that cannot be read.
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
        raise unreadable(str(path))
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
        try:
            return replace(load_chosen(path, info=info, choose=choose), source=data)
        except DatasetError as error:  # speaks of where it lies, and not of a copy that is gone
            what, why, now = (text.replace(str(path), data) for text in (error.what, error.why, error.now))
            raise DatasetError(what, why=why, now=now) from None


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
    names = class_folders(folder, info)
    matched = match(names, info, str(folder))
    paths: list[Path] = []
    labels: list[int] = []
    passed_over = Counter[str]()
    for name, label in zip(names, matched.labels, strict=True):
        found = images_in(folder / name, passed_over)
        paths += found
        labels += [label] * len(found)
    chosen = choose(torch.tensor(labels))
    images = torch.empty(len(chosen), *info.input.shape, dtype=torch.uint8)
    changes = Counter[Change]()
    for position, index in enumerate(chosen.tolist()):
        images[position] = fit(read_image(paths[index]), info.input, str(paths[index]), changes)
    return LabelledImages(
        images,
        torch.tensor(labels)[chosen],
        matched.class_names,
        str(folder),
        notes=(*matched.notes, *notes_on(passed_over, loose_images(folder)), *told(changes, len(images), info.input)),
    )


def _load_packed(path: Path, info: ModelInfo, choose: Choose) -> LabelledImages:
    images, labels, names = read_packed(path)
    count = info.num_classes if names is None else len(names)
    if not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < count:
        span = f"labels from {labels.min()} to {labels.max()}" if len(labels) else "no image"
        raise DatasetError(f"{path} holds {span}; {count} classes need labels from 0 to {count - 1}")
    matched = match_packed(names, info, str(path))
    labels = torch.tensor(matched.labels)[labels]
    chosen = choose(labels)
    images, labels = images[chosen], labels[chosen]
    changes = Counter[Change]()
    if tuple(images.shape[1:]) != info.input.shape:
        fitted = [fit(as_picture(image, str(path)), info.input, str(path), changes) for image in images]
        images = torch.stack(fitted)
    notes = (*matched.notes, *told(changes, len(images), info.input))
    return LabelledImages(images, labels, matched.class_names, str(path), notes=notes)
