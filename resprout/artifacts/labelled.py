"""A labelled test set as an artifact, so that a result's digests say which images it was judged on."""

from __future__ import annotations

from pathlib import Path

import torch

from resprout.artifacts.described import About, described, misdescribed, named_tensors
from resprout.artifacts.folder import load_artifact, save_artifact
from resprout.recipe import EvaluationSection
from resprout.types import LabelledImages


class _About(About):
    num_images: int
    class_names: tuple[str, ...]
    source: str


def save_test_set(images: LabelledImages | None, directory: str | Path, *, section: EvaluationSection) -> str:
    """Write a labelled test set; None is one without images. Returns the digest.

    Args:
        images: in pixel space.
        directory: where to.
        section: names where they come from and how many to take; what else it holds is not recorded.
    """
    return save_artifact(
        directory,
        kind="test_set",
        tensors={} if images is None else {"test_set": {"images": images.images, "labels": images.labels}},
        about={
            "num_images": 0 if images is None else len(images.images),
            "class_names": [] if images is None else list(images.class_names),
            "source": "" if images is None else images.source,
        },
        section={"data": section.data, "max_images": section.max_images},
    )


def load_test_set(directory: str | Path, *, sha256: str | None = None) -> LabelledImages | None:
    """Read a labelled test set; None where it has no images.

    Raises:
        ArtifactError: damaged, of another kind or digest, or not what its manifest describes.
    """
    tensors, manifest = load_artifact(directory, "test_set", sha256=sha256)
    about = described(_About, manifest, directory)
    if not about.num_images:
        return None
    images, labels = named_tensors(tensors, "test_set", directory, "images", "labels")
    if (
        (images.dtype, labels.dtype) != (torch.uint8, torch.int64)
        or images.ndim != 4
        or labels.shape != images.shape[:1]
    ):
        raise misdescribed(directory, f"images of shape {list(images.shape)}, labels of shape {list(labels.shape)}")
    return LabelledImages(images, labels, about.class_names, about.source)
