"""Labelled images in the place of dreams: which, how many of each class, in which form, and when not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from resprout import datasets, recipe
from resprout.collecting import collect, draw
from resprout.errors import DatasetError, RecipeError
from resprout.recipe import ImagesSection, Recipe
from resprout.types import DreamSet, InputSpec, LabelledImages, ModelInfo, Stored

INFO = ModelInfo("any", 3, InputSpec((3, 4, 4), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)), ("cat", "dog", "ape"))
LABELS = torch.tensor([0] * 20 + [1] * 12 + [2] * 8)


def pixels(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "train.safetensors"
    datasets.save_labelled(LabelledImages(pixels(40), LABELS, INFO.class_names), path)
    return path


def nowhere(address: str, folder: Path, report: object) -> Path:
    raise AssertionError(f"nothing is at {address}")


def collected(data: object, seed: int = 0, stored: Stored = nowhere, **counts: int) -> DreamSet:
    section = ImagesSection.model_validate({"data": str(data), "num_images": 18, "num_held_out": 6, **counts})
    return collect(section, info=INFO, seed=seed, stored=stored)


def test_images_are_normalised_halves_under_their_labels(packed: Path) -> None:
    made = collected(packed)
    assert made.images.dtype == torch.float16
    assert (made.num_training, made.num_held_out, made.num_classes) == (18, 6, 3)
    assert made.source == str(packed)
    spec = INFO.input
    mean, std = torch.tensor(spec.mean).view(3, 1, 1), torch.tensor(spec.std).view(3, 1, 1)
    known = {
        ((image / 255 - mean) / std).half().numpy().tobytes(): int(label)
        for image, label in zip(pixels(40), LABELS, strict=True)
    }
    found = [known[image.numpy().tobytes()] for image in made.images]
    assert found == made.targets.tolist()
    assert len({image.numpy().tobytes() for image in made.images}) == 24, "none twice, held out or not"


def test_classes_are_balanced_as_far_as_they_go(packed: Path) -> None:
    assert collected(packed).targets.bincount().tolist() == [8, 8, 8]
    assert collected(packed, num_images=34, num_held_out=0).targets.bincount().tolist() == [14, 12, 8]


def test_the_seed_decides_which_and_the_same_seed_always_the_same(packed: Path) -> None:
    one, again, other = collected(packed), collected(packed), collected(packed, seed=1)
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)
    order = draw(LABELS, 24, seed=0)
    assert torch.equal(one.targets, LABELS[order])
    assert torch.equal(draw(LABELS, 9, seed=0), order[:9]), "fewer are the first of more"


def test_of_a_folder_only_the_images_that_are_taken_are_opened(tmp_path: Path) -> None:
    for name in INFO.class_names:
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (4, 4), (number, 0, 255)).save(tmp_path / "set" / name / f"{number}.png")
    whole = collected(tmp_path / "set", num_images=9, num_held_out=3)
    labels = datasets.load_labelled(tmp_path / "set", info=INFO).labels
    paths = sorted((tmp_path / "set").rglob("*.png"))
    left = set(range(len(labels))) - set(draw(labels, 12, seed=0).tolist())
    for index in left:
        paths[index].write_bytes(b"no image")
    again = collected(tmp_path / "set", num_images=9, num_held_out=3)
    assert torch.equal(again.images, whole.images)


def test_images_in_object_storage_are_fetched_and_named_by_their_address(packed: Path) -> None:
    asked: list[str] = []

    def stored(address: str, folder: Path, report: object) -> Path:
        asked.append(address)
        return packed

    made = collected("s3://bucket/train.safetensors", stored=stored)
    assert asked == [made.source] == ["s3://bucket/train.safetensors"]
    assert torch.equal(made.images, collected(packed).images)


def test_fewer_images_than_are_asked_for_are_refused(packed: Path) -> None:
    with pytest.raises(DatasetError) as refused:
        collected(packed, num_images=1000)
    assert str(refused.value).splitlines() == [
        f"synthesis.data {packed} holds 40 images, and 1,006 are asked for",
        "  why: synthesis.num_images is 1,000, and synthesis.num_held_out 6",
        "  now: lower them, or name more images",
    ]


def test_images_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there are no labelled images at"):
        collected(tmp_path / "none")


@pytest.mark.parametrize("data", ["data/train", "data/train/", "./data//train"])
def test_a_result_is_not_judged_on_what_it_learnt_from(data: str) -> None:
    fields = {"teacher": {"source": "t"}, "synthesis": {"method": "images", "data": "data/train"}}
    with pytest.raises(RecipeError, match=r"synthesis\.data: is evaluation\.data"):
        recipe.validate(Recipe, {**fields, "evaluation": {"data": data}}, "test")
    assert (
        recipe.validate(Recipe, {**fields, "evaluation": {"data": "data/test"}}, "test").training_data == "data/train"
    )
    assert recipe.validate(Recipe, {"teacher": {"source": "t"}}, "test").training_data is None


@pytest.mark.parametrize("field", ["jitter", "iterations"])
def test_images_have_nothing_of_what_only_dreams_have(field: str) -> None:
    with pytest.raises(RecipeError, match=f"{field}: belongs to method: deep_inversion"):
        recipe.section("synthesis", {"method": "images", "data": "x", field: 1})
