from __future__ import annotations

import bz2
import csv
import dataclasses
import json
import os
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from resprout import artifacts
from resprout.batchnorm import batch_norm_layers
from resprout.errors import ArtifactError
from resprout.recipe import DeepInversionSection, TeacherSection
from resprout.types import (
    BNStatistics,
    DreamSet,
    Evaluation,
    Latency,
    LayerStatistics,
    ModelCost,
    ModelScore,
    StoredSize,
    Student,
    Teacher,
)


def statistics_of(teacher: Teacher) -> BNStatistics:
    layers = batch_norm_layers(teacher.network).items()
    return BNStatistics(
        tuple(LayerStatistics(name, bn.running_mean, bn.running_var, bn.eps, (16, 16)) for name, bn in layers)
    )


def evaluation() -> Evaluation:
    cost = ModelCost(parameters=100, nonzero_parameters=30, dense_macs=1000, effective_macs=300, sparsity=0.7)
    return Evaluation(
        scores=[
            ModelScore("teacher", 1.0, 0.0, 0.1 + 0.2, torch.tensor([[0, 1, 1], [1, 1, 5]])),
            ModelScore("recovered", 0.96, 1 / 3),
            ModelScore("pruned", None, None),
        ],
        costs={"teacher": cost, "recovered": dataclasses.replace(cost, sparsity=0.75)},
        num_test_images=10,
        num_held_out_dreams=128,
        class_names=("cat", "dog"),
        sizes={"teacher": StoredSize(4000, 3600), "recovered": StoredSize(4100, 1200)},
        latency=Latency(1.02, batch_size=8, pairs=51, device="cuda"),
    )


def same_tensors(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_teacher_comes_back_bit_for_bit(tiny_teacher: Teacher, tmp_path: Path) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    loaded = artifacts.load_teacher(tmp_path / "teacher")
    assert dataclasses.replace(loaded, network=tiny_teacher.network) == tiny_teacher
    assert same_tensors(loaded.network.state_dict(), tiny_teacher.network.state_dict())
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())


def test_a_channels_last_teacher_comes_back_the_same(tiny_teacher: Teacher, tmp_path: Path) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "plain")
    tiny_teacher.network.to(memory_format=torch.channels_last)
    artifacts.save_teacher(tiny_teacher, tmp_path / "last")
    assert artifacts.digest_of(tmp_path / "plain") == artifacts.digest_of(tmp_path / "last")


def test_a_teachers_manifest_holds_neither_secret_nor_path(tiny_teacher: Teacher, tmp_path: Path) -> None:
    section = TeacherSection(source="https://user:hunter2@host/secret-place/w.pt?token=s3cret", sha256="0" * 64)
    artifacts.save_teacher(
        dataclasses.replace(tiny_teacher, source="https://host/w.pt"), tmp_path / "t", section=section
    )
    text = (tmp_path / "t" / "manifest.json").read_text()
    assert not any(secret in text for secret in ("hunter2", "s3cret", "secret-place", str(tmp_path)))
    assert json.loads(text)["section"]["source"] == "https://host/w.pt"


def test_statistics_come_back_bit_for_bit_and_in_order(tiny_teacher: Teacher, tmp_path: Path) -> None:
    statistics = statistics_of(tiny_teacher)
    artifacts.save_statistics(statistics, tmp_path / "statistics")
    loaded = artifacts.load_statistics(tmp_path / "statistics")
    for before, after in zip(statistics.layers, loaded.layers, strict=True):
        assert (before.name, before.eps, before.spatial) == (after.name, after.eps, after.spatial)
        assert torch.equal(before.mean, after.mean)
        assert torch.equal(before.variance, after.variance)


def test_the_statistics_table_says_what_the_tensors_say(tiny_teacher: Teacher, tmp_path: Path) -> None:
    statistics = statistics_of(tiny_teacher)
    artifacts.save_statistics(statistics, tmp_path / "statistics")
    with (tmp_path / "statistics" / "statistics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [layer.name for layer in statistics.layers]
    for row, layer in zip(rows, statistics.layers, strict=True):
        assert float(row["variance_max"]) == pytest.approx(float(layer.variance.max()), rel=1e-5)
        assert float(row["mean_average"]) == pytest.approx(float(layer.mean.mean()), rel=1e-4, abs=1e-6)
    with Image.open(tmp_path / "statistics" / "statistics.png") as plot:
        assert plot.width > 400


def test_dreams_come_back_bit_for_bit(tiny_teacher: Teacher, tiny_dreams: DreamSet, tmp_path: Path) -> None:
    dreams = dataclasses.replace(tiny_dreams, curves={"z": torch.rand(5), "a": torch.rand(5)})
    section = DeepInversionSection(iterations=5)
    artifacts.save_dreams(dreams, tmp_path / "dreams", input=tiny_teacher.info.input, section=section, seed=3)
    loaded = artifacts.load_dreams(tmp_path / "dreams")
    assert torch.equal(loaded.images, dreams.images)
    assert loaded.images.dtype == torch.float16
    assert torch.equal(loaded.targets, dreams.targets)
    assert (loaded.num_held_out, loaded.num_classes) == (dreams.num_held_out, dreams.num_classes)
    assert list(loaded.curves) == ["z", "a"]
    assert same_tensors(dict(loaded.curves), dict(dreams.curves))
    manifest = artifacts.read_manifest(tmp_path / "dreams")
    assert manifest.about["space"] == "normalised model input"
    assert (manifest.seed, manifest.section["iterations"]) == (3, 5)


def test_the_preview_shows_dreams_in_pixel_space(tiny_teacher: Teacher, tmp_path: Path) -> None:
    spec = tiny_teacher.info.input
    pixels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])[:, :, None, None].expand(2, 3, 16, 16)
    dreams = DreamSet(spec.normalise(pixels).half(), torch.tensor([1, 0]), num_held_out=0, num_classes=2)
    artifacts.save_dreams(dreams, tmp_path / "dreams", input=spec)
    with Image.open(tmp_path / "dreams" / "preview.png") as preview:
        colours = [preview.getpixel((preview.width * place // 4, preview.height // 2)) for place in (1, 3)]
    assert colours == [(0, 0, 255), (255, 0, 0)]  # in the order of the classes


@pytest.mark.parametrize("kind", ["student", "recovered"])
def test_a_student_comes_back_bit_for_bit(tiny_student: Student, tmp_path: Path, kind: str) -> None:
    artifacts.save_student(tiny_student, tmp_path / "student", kind=kind, about={"note": "kept"})
    loaded = artifacts.load_student(tmp_path / "student")
    assert loaded.info == tiny_student.info
    assert same_tensors(loaded.network.state_dict(), tiny_student.network.state_dict())
    assert same_tensors(dict(loaded.mask.keep), dict(tiny_student.mask.keep))
    manifest = artifacts.read_manifest(tmp_path / "student")
    assert (manifest.kind, manifest.about["note"]) == (kind, "kept")


def test_density_counts_the_weights_that_stay(tiny_student: Student, tmp_path: Path) -> None:
    artifacts.save_student(tiny_student, tmp_path / "student")
    density = json.loads((tmp_path / "student" / "density.json").read_text())
    weights = dict(tiny_student.network.named_parameters())
    for name, layer in density["layers"].items():
        assert layer["kept"] == int(torch.count_nonzero(weights[name]))
        assert layer["density"] == pytest.approx(layer["kept"] / weights[name].numel())
    assert density["total"]["sparsity"] == pytest.approx(tiny_student.mask.sparsity)


def test_a_mask_takes_one_bit_a_weight(tiny_student: Student, tmp_path: Path) -> None:
    artifacts.save_student(tiny_student, tmp_path / "student")
    tensors, _ = artifacts.load_artifact(tmp_path / "student", "student")
    packed = sum(bits.numel() for bits in tensors["mask"].values())
    assert packed <= tiny_student.mask.num_weights / 8 + len(tiny_student.mask.keep)


def test_a_student_whose_pruned_weight_came_back_is_not_written(tiny_student: Student, tmp_path: Path) -> None:
    name, keep = next(iter(tiny_student.mask.keep.items()))
    with torch.no_grad():
        dict(tiny_student.network.named_parameters())[name][~keep] = 1e-9
    with pytest.raises(ArtifactError, match=f"weights of {name} are not zero"):
        artifacts.save_student(tiny_student, tmp_path / "student")


def test_an_evaluation_comes_back_the_same(tmp_path: Path) -> None:
    before = evaluation()
    artifacts.save_evaluation(before, tmp_path / "evaluation")
    after = artifacts.load_evaluation(tmp_path / "evaluation")
    for left, right in zip(before.scores, after.scores, strict=True):
        assert dataclasses.replace(left, confusion=None) == dataclasses.replace(right, confusion=None)
        assert (left.confusion is None) == (right.confusion is None)
    assert torch.equal(before.score("teacher").confusion, after.score("teacher").confusion)
    assert list(after.costs.items()) == list(before.costs.items())
    assert list(after.sizes.items()) == list(before.sizes.items())
    assert dataclasses.replace(after, scores=[], costs={}) == dataclasses.replace(before, scores=[], costs={})


def test_an_evaluation_is_as_small_with_all_of_imagenets_classes(tmp_path: Path) -> None:
    few, names = evaluation(), tuple(f"class {label}" for label in range(21_841))
    answered = ModelScore("teacher", 1.0, 0.0, 0.5, torch.tensor([[0, 1, 1], [21_840, 21_840, 5]]))
    many = dataclasses.replace(few, scores=[answered, *few.scores[1:]], class_names=names)
    for name, saved in (("few", few), ("many", many)):
        artifacts.save_evaluation(saved, tmp_path / name)
    few_bytes, many_bytes = (
        sum(path.stat().st_size for path in (tmp_path / name).iterdir()) for name in ("few", "many")
    )
    assert many_bytes - few_bytes < 40 * len(names), "the names, and little else"


def test_metrics_are_flat_numbers_without_what_was_not_measured(tmp_path: Path) -> None:
    artifacts.save_evaluation(evaluation(), tmp_path / "evaluation")
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["recovered.agreement"] == 0.96
    assert metrics["recovered.sparsity"] == 0.75
    assert metrics["num_held_out_dreams"] == 128
    assert (metrics["teacher.size_bytes"], metrics["recovered.compressed_size_bytes"]) == (4000, 1200)
    assert (metrics["recovered.latency_ratio"], metrics["recovered.latency_batch_size"]) == (1.02, 8)
    assert "recovered.top1" not in metrics
    assert all(isinstance(value, int | float) for value in metrics.values())


def test_an_evaluation_from_before_sizes_and_latency_were_measured_still_loads(tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    artifacts.save_evaluation(dataclasses.replace(evaluation(), sizes={}, latency=None), folder)
    manifest = artifacts.read_manifest(folder)
    older = {name: value for name, value in manifest.about.items() if name not in ("sizes", "latency")}
    (folder / "manifest.json").write_text(manifest.model_copy(update={"about": older}).to_json())
    loaded = artifacts.load_evaluation(folder)
    assert (loaded.sizes, loaded.latency) == ({}, None)
    assert list(loaded.costs) == ["teacher", "recovered"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert not [name for name in metrics if "size" in name or "latency" in name]


def test_the_size_of_an_artifact_is_that_of_its_files(tiny_student: Student, tmp_path: Path) -> None:
    artifacts.save_student(tiny_student, tmp_path / "student")
    files = ("weights.safetensors", "mask.safetensors", "density.json", "manifest.json")
    assert {path.name for path in (tmp_path / "student").iterdir()} == set(files)

    size = artifacts.stored_size(tmp_path / "student")

    assert size.size_bytes == sum(os.stat(tmp_path / "student" / name).st_size for name in files)
    compressed = [bz2.compress((tmp_path / "student" / name).read_bytes()) for name in files]
    assert size.compressed_size_bytes == sum(map(len, compressed))


def test_a_mask_makes_a_network_smaller_only_where_it_is_compressed(
    tiny_teacher: Teacher, tiny_student: Student, tmp_path: Path
) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    artifacts.save_student(tiny_student, tmp_path / "student")
    teacher, student = (artifacts.stored_size(tmp_path / name) for name in ("teacher", "student"))
    assert student.size_bytes > teacher.size_bytes, "the mask comes on top"
    assert student.compressed_size_bytes < teacher.compressed_size_bytes / 2


@pytest.mark.parametrize("length", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_of_any_length_is_counted_once(tmp_path: Path, length: int) -> None:
    content = bytes(range(251)) * (length // 251 + 1)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(content[:length])
    size = artifacts.stored_size(tmp_path)
    assert (size.size_bytes, size.compressed_size_bytes) == (length, len(bz2.compress(content[:length])))


@given(st.lists(st.booleans(), max_size=70), st.integers(1, 3))
def test_packed_bits_unpack_to_the_same_mask(bits: list[bool], rows: int) -> None:
    keep = torch.tensor(bits * rows, dtype=torch.bool).view(rows, len(bits))
    packed = artifacts.pack_bits(keep)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-keep.numel() // 8)
    assert torch.equal(artifacts.unpack_bits(packed, keep.shape), keep)


def test_bits_are_packed_as_numpy_packs_them() -> None:
    keep = torch.rand(7, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    assert artifacts.pack_bits(keep).tolist() == numpy.packbits(keep.numpy()).tolist()


def test_digests_lead_from_a_result_back_to_the_weights(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, tmp_path: Path
) -> None:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    inputs = artifacts.records({"teacher": tmp_path / "teacher"})
    artifacts.save_statistics(statistics_of(tiny_teacher), tmp_path / "statistics", inputs=inputs)
    artifacts.save_dreams(
        tiny_dreams,
        tmp_path / "dreams",
        input=tiny_teacher.info.input,
        seed=5,
        inputs=[*inputs, *artifacts.records({"statistics": tmp_path / "statistics"})],
    )
    artifacts.save_evaluation(
        evaluation(), tmp_path / "evaluation", inputs=artifacts.records({"dreams": tmp_path / "dreams"})
    )
    (dreams,) = artifacts.read_manifest(tmp_path / "evaluation").inputs
    assert (dreams["kind"], dreams["seed"]) == ("dreams", 5)
    assert dreams["sha256"] == artifacts.digest_of(tmp_path / "dreams")
    statistics = next(record for record in dreams["inputs"] if record["name"] == "statistics")
    assert statistics["sha256"] == artifacts.digest_of(tmp_path / "statistics")
    (teacher,) = statistics["inputs"]
    assert teacher["sha256"] == artifacts.digest_of(tmp_path / "teacher")
    assert teacher["about"] == {"source": "tests", "digest": "0" * 64}


def test_the_same_work_gives_the_same_digest_anywhere(
    tiny_teacher: Teacher, tiny_dreams: DreamSet, tmp_path: Path
) -> None:
    digests = []
    for place in (tmp_path / "here", tmp_path / "there"):
        artifacts.save_teacher(tiny_teacher, place / "teacher")
        inputs = artifacts.records({"teacher": place / "teacher"})
        statistics = artifacts.save_statistics(statistics_of(tiny_teacher), place / "statistics", inputs=inputs)
        dreams = artifacts.save_dreams(tiny_dreams, place / "dreams", input=tiny_teacher.info.input, inputs=inputs)
        digests.append((statistics, dreams))
    assert digests[0] == digests[1]


def test_another_bit_gives_another_digest(tiny_student: Student, tmp_path: Path) -> None:
    first = artifacts.save_student(tiny_student, tmp_path / "first")
    with torch.no_grad():
        next(tiny_student.network.parameters()).mul_(1.0001)
    assert artifacts.save_student(tiny_student, tmp_path / "second") != first
