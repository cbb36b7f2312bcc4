"""Images that a network learnt from are found among those that it is judged on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resprout.collecting import in_place_of_dreams
from resprout.errors import DatasetError
from resprout.evaluation import evaluate
from resprout.overlap import refuse_overlap
from resprout.recipe import SensitivitySection
from resprout.sensitivity import scan
from resprout.types import DreamSet, InputSpec, LabelledImages, ModelInfo, Student, Teacher

NAMES = ("cat", "dog")
CHANNELS = st.tuples(*[st.floats(0, 1)] * 3), st.tuples(*[st.floats(0.01, 1)] * 3)


def pixels(count: int, seed: int = 0) -> LabelledImages:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return LabelledImages(images, torch.arange(count) % 2, NAMES)


def learnt(images: LabelledImages, spec: InputSpec, source: str = "data/train") -> DreamSet:
    info = ModelInfo("cifar_resnet8", 2, spec, NAMES)
    return replace(in_place_of_dreams(images, info, num_held_out=2), source=source)


@settings(max_examples=30, deadline=None)
@given(*CHANNELS)
def test_an_image_is_found_whatever_the_teachers_normalisation(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    spec = InputSpec((3, 8, 8), mean, std)
    test_set, train = pixels(20), pixels(300, seed=1)
    refuse_overlap(test_set, learnt(train, spec), spec)
    train.images[299], train.images[7] = test_set.images[5], test_set.images[8]

    with pytest.raises(DatasetError, match=r"2 of 20 test images are also among the images trained on \(data/train\)"):
        refuse_overlap(test_set, learnt(train, spec), spec)


def test_it_is_told_which_image_and_what_to_do() -> None:
    spec = InputSpec((3, 8, 8), (0.5, 0.4, 0.3), (0.2, 0.2, 0.3))
    train = pixels(4, seed=1)
    train.images[3] = pixels(20).images[5]
    said = {}
    for source in ("s3://bucket/train", ""):
        with pytest.raises(DatasetError) as refused:
            refuse_overlap(pixels(20), learnt(train, spec, source), spec)
        said[source] = str(refused.value).splitlines()
    why = "accuracy on images that a network learnt from says little about others; the first is image 5, of class dog"
    assert said["s3://bucket/train"] == [
        "1 of 20 test images are also among the images trained on (s3://bucket/train)",
        f"  why: {why}",
        "  now: take them out of evaluation.data or of synthesis.data",
    ]
    assert said[""][0].endswith("(the dreams)")
    assert said[""][2].startswith("  now: start the run anew")


def test_evaluation_and_a_scan_refuse_them_before_they_look_at_a_network(
    tiny_teacher: Teacher, tiny_student: Student
) -> None:
    spec = tiny_teacher.info.input
    images = torch.randint(0, 256, (6, *spec.shape), dtype=torch.uint8)
    test_set = LabelledImages(images, torch.arange(6) % 4, tiny_teacher.info.class_names)
    dreams = in_place_of_dreams(test_set, tiny_teacher.info, num_held_out=3)
    with pytest.raises(DatasetError, match="6 of 6 test images"):
        evaluate(tiny_teacher, {"pruned": tiny_student}, dreams, test_set)
    with pytest.raises(DatasetError, match="6 of 6 test images"):
        scan(tiny_teacher, dreams, SensitivitySection(), data=test_set)
