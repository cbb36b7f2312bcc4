from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import train
from batches import prepare
from cifar10 import CLASS_NAMES, INPUT
from torch import Tensor
from training import Settings, Training, load_checkpoint, save_checkpoint, start, train_epoch

from resprout import models
from resprout.artifacts import load_teacher
from resprout.errors import ArtifactError
from resprout.types import LabelledImages

TINY = Settings("cifar_resnet8", {"width": 4}, epochs=4, batch_size=16)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    """64 images whose class is their brightness, in the shape of CIFAR-10's."""
    labels = torch.arange(64) % 10
    noise = torch.randint(0, 30, (64, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    return LabelledImages((noise + 20 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels, CLASS_NAMES)


def run(training: Training, images: LabelledImages, epochs: int, settings: Settings = TINY) -> list[float]:
    padded = prepare(images.images, INPUT)
    return [train_epoch(training, padded, images.labels, settings)[0] for _ in range(epochs)]


def weights(training: Training) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in training.network.state_dict().items()}


def test_a_resumed_training_ends_with_the_same_weights(images: LabelledImages, tmp_path: Path) -> None:
    unbroken = start(TINY, 64, CPU)
    run(unbroken, images, 4)

    broken = start(TINY, 64, CPU)
    run(broken, images, 1)
    save_checkpoint(broken, TINY, tmp_path / "checkpoint.pt")
    resumed = start(TINY, 64, CPU)
    load_checkpoint(resumed, TINY, tmp_path / "checkpoint.pt")
    run(resumed, images, 3)

    assert resumed.epoch == unbroken.epoch == 4
    assert torch.equal(resumed.losses, unbroken.losses)
    for name, tensor in weights(unbroken).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


def test_a_checkpoint_of_another_training_is_refused(images: LabelledImages, tmp_path: Path) -> None:
    save_checkpoint(start(TINY, 64, CPU), TINY, tmp_path / "checkpoint.pt")

    with pytest.raises(ArtifactError, match="another training"):
        load_checkpoint(start(TINY, 64, CPU), replace(TINY, seed=1), tmp_path / "checkpoint.pt")


def test_a_training_may_be_cut_short(images: LabelledImages, tmp_path: Path) -> None:
    training = start(TINY, 64, CPU)
    run(training, images, 1)
    save_checkpoint(training, TINY, tmp_path / "checkpoint.pt")
    shorter = replace(TINY, epochs=2)

    data = {"train": images, "test": images}
    network = train.train(shorter, data, tmp_path / "checkpoint.pt", device=CPU, evaluate_every=10)
    run(training, images, 1, shorter)

    for name, tensor in weights(training).items():
        assert torch.equal(tensor, network.state_dict()[name]), name


def test_training_learns_and_ends_in_a_teacher_that_loads(
    images: LabelledImages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(TINY, epochs=12)
    checkpoint = tmp_path / "checkpoint.pt"
    network = train.train(settings, {"train": images, "test": images}, checkpoint, device=CPU, evaluate_every=6)

    export_accuracy = train.export(network, settings, 12, images, tmp_path / "teacher")
    loaded, epochs = train.load_network(settings, checkpoint)
    teacher = load_teacher(tmp_path / "teacher")

    lines = capsys.readouterr().out.splitlines()
    first, last = (float(re.search(r"loss (\S+)", line)[1]) for line in (lines[0], lines[11]))  # type: ignore[index]
    assert last < 0.6 * first
    assert f"{export_accuracy:.2%} of 64 test images" in lines[-1]
    assert export_accuracy > 0.3  # chance is 0.1
    assert epochs == 12
    assert teacher.info.class_names == CLASS_NAMES
    assert teacher.info.input == INPUT
    for name, tensor in teacher.network.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_the_schedule_warms_up_and_falls_to_zero_linearly() -> None:
    factor = Settings(warmup=0.2).learning_rate_factor

    assert [factor(progress) for progress in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_small_images_first_and_all_samples_last() -> None:
    settings = Settings(epochs=16)

    assert [settings.size(epoch) for epoch in (0, 7, 8, 15)] == [24, 24, 32, 32]
    assert [settings.skips(epoch) for epoch in (0, 1, 13, 14, 15)] == [False, True, True, False, False]


@pytest.mark.parametrize("name", ["vgg11_half", "mobilenet_v2_half"])
def test_the_benchmark_teachers_can_be_trained_at_every_size(
    name: str, example: Path, script: Callable[[str], ModuleType]
) -> None:
    teachers = script("benchmarks/teachers/train.py")

    options, settings = train.parse(teachers.command(name)[2:])
    network = models.build(settings.architecture, num_classes=10, arguments=settings.arguments).eval()

    assert options.out.parent == example.parents[1] / "benchmarks" / "teachers"
    for epoch in (0, settings.epochs - 1):
        assert network(torch.zeros(1, 3, *[settings.size(epoch)] * 2)).shape == (1, 10)
