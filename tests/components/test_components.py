"""Each component, called as the pipeline calls it, on real artifacts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kfp import dsl

from components.evaluate import evaluate
from components.fetch_teacher import fetch_teacher
from components.merge_dreams import merge_dreams
from components.prune import prune
from components.prune_on_dreams import prune_on_dreams
from components.recover import recover
from components.scan_sensitivity import scan_sensitivity
from resprout import artifacts, provenance
from resprout.errors import ResproutError
from resprout.types import Evaluation, Teacher
from tests.components.stages import (
    PRUNING,
    RECOVERY,
    SYNTHESIS,
    Stage,
    dreamt,
    labelled,
    pruned,
    save_images,
)


def input_names(directory: Path) -> list[str]:
    return [record["name"] for record in artifacts.read_manifest(directory).inputs]


def test_fetch_teacher_hands_on_the_same_weights(tmp_path: Path, tiny_teacher: Teacher):
    artifacts.save_teacher(tiny_teacher, tmp_path / "source")
    teacher, metrics = Stage(tmp_path)(dsl.Model, "teacher"), Stage(tmp_path).metrics()

    fetch_teacher.python_func(section={"source": str(tmp_path / "source")}, teacher=teacher, metrics=metrics)

    fetched = artifacts.load_teacher(teacher.path).network.state_dict()
    assert all(torch.equal(fetched[name], weights) for name, weights in tiny_teacher.network.state_dict().items())
    assert metrics.metadata["batchnorm_layers"] == 9
    assert teacher.metadata == {
        "display_name": "teacher, cifar_resnet8",
        "architecture": "cifar_resnet8",
        "input": "3x16x16",
    }


def test_a_refusal_is_what_the_core_raised(tmp_path: Path):
    stage = Stage(tmp_path)

    with pytest.raises(ResproutError, match="nowhere"):
        fetch_teacher.python_func(
            section={"source": str(tmp_path / "nowhere")}, teacher=stage(dsl.Model, "t"), metrics=stage.metrics()
        )
    with pytest.raises(ResproutError, match=r"sparsity.*1\.5"):
        prune.python_func(
            teacher=stage(dsl.Model, "t"),
            section={**PRUNING, "sparsity": 1.5},
            seed=0,
            student=stage(dsl.Model, "student"),
            metrics=stage.metrics(),
        )


def test_extract_statistics_counts_what_it_read(stage: Stage):
    statistics = artifacts.load_statistics(stage.folder / "statistics")

    assert len(statistics.layers) == 9
    assert input_names(stage.folder / "statistics") == ["teacher"]


def test_synthesize_makes_the_images_that_the_section_asks_for(stage: Stage):
    metrics = dreamt(stage)

    dreams = artifacts.load_dreams(stage.folder / "dreams")
    assert (dreams.num_training, dreams.num_held_out) == (12, 4)
    assert input_names(stage.folder / "dreams") == ["teacher", "statistics"]
    assert metrics.metadata["images"] == 12
    manifest = artifacts.read_manifest(stage.folder / "dreams")
    assert (manifest.section["iterations"], manifest.seed) == (3, 0)


def test_the_dreams_are_the_same_artifact_however_many_shards_made_them(stage: Stage):
    digests = set()
    for num_shards in (1, 2, 3):
        dreamt(stage, num_shards=num_shards)
        digests.add(artifacts.digest_of(stage.folder / "dreams"))

    assert len(digests) == 1


def test_shards_of_different_recipes_are_not_put_together(stage: Stage):
    dreamt(stage, num_shards=2)
    dreamt(stage, {**SYNTHESIS, "iterations": 4.0}, num_shards=3)
    shards = [stage(dsl.Dataset, "shard-0-of-2"), stage(dsl.Dataset, "shard-2-of-3")]

    with pytest.raises(ResproutError, match=r"shard-2-of-3 was made with other settings.*than .*shard-0-of-2"):
        artifacts.save_merged(
            artifacts.load_dreams(stage.folder / "dreams"), stage.folder / "mixed", shards=[it.path for it in shards]
        )
    with pytest.raises(ResproutError, match="not each of 3 once"):
        merge_dreams.python_func(shards=shards[:1], dreams=stage(dsl.Dataset, "mixed"), metrics=stage.metrics())


def test_a_student_changes_the_dreams_and_is_recorded(stage: Stage):
    aware = {**SYNTHESIS, "student_weight": 5.0}
    dreamt(stage)
    blind = artifacts.load_dreams(stage.folder / "dreams")
    dreamt(stage, aware, student=pruned(stage))

    assert not torch.equal(artifacts.load_dreams(stage.folder / "dreams").images, blind.images)
    assert input_names(stage.folder / "dreams") == ["teacher", "statistics", "student"]


def test_prune_removes_the_share_that_the_section_asks_for(stage: Stage):
    student = pruned(stage)

    assert artifacts.load_student(student.path).mask.sparsity == pytest.approx(0.5, abs=1e-3)
    assert student.metadata["method"] == "global_magnitude"
    assert student.metadata["display_name"] == "pruned student, 50.0 % sparse"


def test_recover_and_evaluate_leave_students_scores_and_pages(stage: Stage, tiny_images: Any, tiny_teacher: Teacher):
    student = pruned(stage)
    dreamt(stage)
    networks = {"teacher": stage(dsl.Model, "teacher"), "dreams": stage(dsl.Dataset, "dreams")}
    students = {name: stage(dsl.Model, name) for name in ("repaired", "recovered")}
    recover.python_func(
        **networks, **students, student=student, section=RECOVERY, seed=0, checkpoints="", metrics=stage.metrics()
    )
    save_images(stage.folder / "data.safetensors", tiny_images, tiny_teacher)
    section = {
        "data": str(stage.folder / "data.safetensors"),
        "max_images": 40.0,
        "measure_latency": True,
        "latency_batch_size": 2.0,
    }
    test_set = labelled(stage, section)
    outputs = {
        "evaluation": stage(dsl.Artifact, "evaluation"),
        "metrics": stage.metrics(),
        "confusion": stage(dsl.ClassificationMetrics, "confusion"),
        "report": stage(dsl.HTML, "report"),
        "summary": stage(dsl.Markdown, "summary"),
    }
    evaluate.python_func(
        **networks,
        **students,
        **outputs,
        statistics=stage(dsl.Artifact, "statistics"),
        pruned=student,
        test_set=test_set,
        section=section,
    )

    before = artifacts.load_student(student.path).mask.keep
    recovered = artifacts.load_student(students["recovered"].path)
    assert all(torch.equal(recovered.mask.keep[name], kept) for name, kept in before.items())
    scores = artifacts.load_evaluation(stage.folder / "evaluation")
    assert [score.name for score in scores.scores] == ["teacher", "pruned", "repaired", "recovered"]
    top1 = scores.score("recovered").top1
    assert outputs["metrics"].metadata["recovered_top1_percent"] == pytest.approx(100 * top1)
    assert_costs_are_logged(scores, outputs["metrics"], Path(students["recovered"].path))
    matrix = outputs["confusion"].metadata["confusionMatrix"]
    assert sum(sum(row["row"]) for row in matrix["rows"]) == 40
    named = {name: output.metadata.get("display_name") for name, output in {**students, **outputs}.items()}
    assert named["repaired"] == "repaired student, 50.0 % sparse"
    assert named["evaluation"] == "scores of teacher and students"
    assert (named["report"], named["summary"]) == ("report", "summary")
    assert "<html" in (stage.folder / "report").read_text().lower()
    assert f"| recovered | {100 * top1:.1f} % |" in (stage.folder / "summary").read_text()


def test_a_student_that_lost_channels_goes_through_the_same_stages(stage: Stage):
    networks = {"teacher": stage(dsl.Model, "teacher")}
    student, metrics = stage(dsl.Model, "student"), stage.metrics()
    section = {"method": "structured", "macs_ratio": 0.5, "round_to": 2.0}
    prune.python_func(**networks, section=section, seed=0, student=student, metrics=metrics)
    dreamt(stage)
    networks["dreams"] = stage(dsl.Dataset, "dreams")
    students = {name: stage(dsl.Model, name) for name in ("repaired", "recovered")}
    recovery = {"section": RECOVERY, "seed": 0, "checkpoints": ""}
    recover.python_func(**networks, **students, **recovery, student=student, metrics=stage.metrics())
    evaluate.python_func(
        **networks,
        **students,
        statistics=stage(dsl.Artifact, "statistics"),
        pruned=student,
        test_set=labelled(stage, {}),
        section={},
        evaluation=stage(dsl.Artifact, "evaluation"),
        metrics=stage.metrics(),
        confusion=stage(dsl.ClassificationMetrics, "confusion"),
        report=stage(dsl.HTML, "report"),
        summary=stage(dsl.Markdown, "summary"),
    )

    before, after = (artifacts.load_student(folder.path) for folder in (student, students["recovered"]))
    assert after.channels is not None
    assert after.kept.num_kept == before.kept.num_kept < before.kept.num_weights
    gone = f"{metrics.metadata['sparsity_percent']:.1f}"
    assert student.metadata["display_name"] == f"pruned student, {gone} % of the weights gone with their channels"
    costs = artifacts.load_evaluation(stage.folder / "evaluation").costs
    assert f"{100 * costs['recovered'].sparsity:.1f}" == gone
    assert costs["recovered"].dense_macs <= 0.5 * costs["teacher"].dense_macs
    assert f"{gone}\N{NO-BREAK SPACE}% of the weights pruned" in (stage.folder / "report").read_text()


@pytest.mark.parametrize("sparsity", ["auto", 0.5])
def test_what_an_automatic_sparsity_tried_goes_with_the_student_into_the_report(stage: Stage, sparsity: str | float):
    dreamt(stage)
    student, report = stage(dsl.Model, "student"), stage(dsl.HTML, "report")
    networks = {"teacher": stage(dsl.Model, "teacher"), "dreams": stage(dsl.Dataset, "dreams")}
    promise = {"min_agreement": 0.1} if sparsity == "auto" else {}
    prune_on_dreams.python_func(
        **networks,
        section={"method": "global_magnitude", "sparsity": sparsity, **promise},
        recovery=RECOVERY,
        seed=0,
        checkpoints="",
        student=student,
        metrics=stage.metrics(),
    )
    evaluate.python_func(
        **networks,
        statistics=stage(dsl.Artifact, "statistics"),
        pruned=student,
        repaired=student,
        recovered=student,
        test_set=labelled(stage, {}),
        section={},
        evaluation=stage(dsl.Artifact, "evaluation"),
        metrics=stage.metrics(),
        confusion=stage(dsl.ClassificationMetrics, "confusion"),
        report=report,
        summary=stage(dsl.Markdown, "summary"),
    )

    choice, page = provenance.sparsity_choice(student.path), Path(report.path).read_text()
    assert (choice is None) == (sparsity == 0.5) == ("Why this sparsity" not in page)
    if choice is not None:
        assert choice.promised == 0.1
        assert student.metadata["sparsity"] == f"{100 * choice.sparsity:.1f} %"


def assert_costs_are_logged(evaluation: Evaluation, metrics: dsl.Metrics, recovered: Path) -> None:
    stored = sum(os.stat(path).st_size for path in recovered.iterdir())
    assert evaluation.sizes["recovered"].size_bytes == stored
    assert metrics.metadata["recovered_size_mib"] == stored / 2**20
    assert metrics.metadata["teacher_compressed_size_mib"] == evaluation.sizes["teacher"].compressed_size_bytes / 2**20
    assert evaluation.latency is not None
    assert evaluation.latency.batch_size == 2
    assert metrics.metadata["recovered_latency_ratio"] == evaluation.latency.ratio > 0


def test_custom_code_that_the_teacher_stage_let_in_runs_in_later_stages(tmp_path: Path, tiny_teacher: Teacher):
    info = replace(
        tiny_teacher.info,
        architecture="resprout.models.cifar:thin_resnet",
        arguments={"depth": 8, "channels": 3, "width": 8},
        custom_code=True,
    )
    artifacts.save_teacher(replace(tiny_teacher, info=info), tmp_path / "teacher")
    stage = Stage(tmp_path)

    pruned(stage)

    with pytest.raises(ResproutError, match="custom code"):
        artifacts.load_student(tmp_path / "student")


def test_a_sensitivity_scan_leaves_figures_a_table_and_a_page(stage: Stage):
    dreamt(stage)
    found, metrics = stage(dsl.Artifact, "sensitivity"), stage.metrics()
    page = stage(dsl.HTML, "page")

    scan_sensitivity.python_func(
        teacher=stage(dsl.Model, "teacher"),
        dreams=stage(dsl.Dataset, "dreams"),
        section={"sparsities": [0.9], "repair_dreams": 4.0},
        sensitivity=found,
        metrics=metrics,
        page=page,
    )

    scanned = artifacts.load_sensitivity(found.path)
    assert len(scanned.layers) == metrics.metadata["layers"] == 10
    assert metrics.metadata["most_lost_percent"] == 100 * scanned.ranking()[0][1]
    assert found.metadata["most_sensitive"] == scanned.ranking()[0][0]
    assert input_names(Path(found.path)) == ["teacher", "dreams"]
    assert artifacts.digest_of(stage.folder / "teacher") in Path(page.path).read_text()
    with pytest.raises(ResproutError, match="sparsity: no such field"):
        scan_sensitivity.python_func(
            teacher=stage(dsl.Model, "teacher"),
            dreams=stage(dsl.Dataset, "dreams"),
            section={"sparsity": 0.9},
            sensitivity=found,
            metrics=metrics,
            page=page,
        )
