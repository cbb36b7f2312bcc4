"""Your own labelled images in the place of dreams: not data-free, but what dreams can be held against.

It is the setting of arXiv 2511.16653, which scores weights, and retrains, on labelled training images.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from resprout import datasets
from resprout.errors import DatasetError
from resprout.progress import Report, silent
from resprout.recipe import ImagesSection
from resprout.seeding import generator
from resprout.types import DreamSet, LabelledImages, ModelInfo, Stored


def collect(section: ImagesSection, *, info: ModelInfo, seed: int, stored: Stored, report: Report = silent) -> DreamSet:
    """Labelled images as the set that every later stage takes, balanced over the classes, some of them held out.

    Args:
        section: where they are, how many to train on, how many to hold out.
        info: the teacher's, whose classes and input they must fit.
        seed: with the section and the images, determines which are taken.
        stored: fetches what lies at an s3:// address into a folder and returns where it is then.
        report: is told how far that is.

    Raises:
        DatasetError: as `datasets.load_labelled`; or there are fewer images than are asked for.
    """
    choose = partial(_drawn, section=section, seed=seed)
    found = datasets.fetch_chosen(section.data, info=info, choose=choose, stored=stored, report=report)
    return in_place_of_dreams(found, info, num_held_out=section.num_held_out)


def in_place_of_dreams(labelled: LabelledImages, info: ModelInfo, *, num_held_out: int) -> DreamSet:
    """Labelled images as dreams are kept: normalised, in float16, their labels as targets; the last are held out."""
    images = info.input.normalise(labelled.images.float() / 255)
    return DreamSet(
        images.half(), labelled.labels, num_held_out, info.num_classes, source=labelled.source, notes=labelled.notes
    )


def draw(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """Which images to take: in random order, one of each class after the other, as far as the classes go.

    Args:
        labels: int64, shape (n,).
        count: at most n.
        seed: determines the order.

    Returns:
        Int64 indices, shape (count,).
    """
    order = torch.randperm(len(labels), generator=generator(seed, "real"))
    ranks = _rank_within_class(labels[order])
    return order[ranks.argsort(stable=True)[:count]]


def _drawn(labels: Tensor, *, section: ImagesSection, seed: int) -> Tensor:
    wanted = section.num_images + section.num_held_out
    if len(labels) < wanted:
        raise DatasetError(
            f"synthesis.data {section.data} holds {len(labels):,} images, and {wanted:,} are asked for",
            why=f"synthesis.num_images is {section.num_images:,}, and synthesis.num_held_out {section.num_held_out:,}",
            now="lower them, or name more images",
        )
    return draw(labels, wanted, seed=seed)


def _rank_within_class(labels: Tensor) -> Tensor:
    order = labels.argsort(stable=True)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), labels.bincount().cumsum(0)])
    ranks = torch.empty_like(labels)
    ranks[order] = torch.arange(len(labels)) - starts[labels[order]]
    return ranks
