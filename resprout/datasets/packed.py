"""A labelled set as one .safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from resprout.errors import DatasetError
from resprout.files import write_atomically
from resprout.types import LabelledImages


def save_labelled(images: LabelledImages, path: str | Path) -> None:
    """Write a labelled test set as one .safetensors file, whole or not at all.

    It holds `images` (uint8, (n, channels, height, width)), `labels` (int64, (n,)) and, in the metadata,
    `class_names` as a JSON list.
    """
    tensors = {"images": images.images.contiguous(), "labels": images.labels.contiguous()}
    with write_atomically(Path(path)) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, metadata={"class_names": json.dumps(list(images.class_names))})
        temporary.chmod(mode)  # safetensors writes for the owner alone, whatever the umask


def read_packed(path: Path) -> tuple[Tensor, Tensor, tuple[str, ...] | None]:
    """Images, labels and class names of a file that `save_labelled` wrote; None without names.

    Raises:
        DatasetError: it is another file, or holds other types or shapes.
    """
    try:
        with safe_open(path, framework="pt") as file:
            images, labels = file.get_tensor("images"), file.get_tensor("labels")
            names = json.loads((file.metadata() or {}).get("class_names", "null"))
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
    if not (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
        raise DatasetError(
            f"{path} has class_names {str(names)[:80]} in its metadata",
            why="they are a JSON list of names, in the order of the labels",
            now='for example "[\\"cat\\", \\"dog\\"]", or leave them out',
        )
    return images, labels, None if names is None else tuple(names)
