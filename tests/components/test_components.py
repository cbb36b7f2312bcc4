"""Each component, called as the pipeline calls it, on real artifacts."""

from __future__ import annotations

import inspect
import json
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kfp import dsl

from components._metrics import log
from components.evaluate import evaluate
from components.extract_statistics import extract_statistics
from components.fetch_teacher import fetch_teacher
from components.gate import gate
from components.merge_dreams import merge_dreams
from components.prune import prune
from components.publish import publish
from components.recover import recover
from components.scan_sensitivity import scan_sensitivity
from components.synthesize import synthesize
from resprout import artifacts, outcome, provenance
from resprout.devices import computed_on, devices
from resprout.errors import DeviceError, RecipeError, ResproutError
from resprout.progress import remark
from resprout.types import DreamSet, Evaluation, Teacher
from tests.components.stages import (
    PRUNING,
    SYNTHESIS,
    Stage,
    dreamt,
    evaluated,
    labelled,
    pruned,
    recovered,
    save_images,
)


def input_names(directory: Path) -> list[str]:
    return [record["name"] for record in artifacts.read_manifest(directory).inputs]


def test_fetch_teacher_hands_on_the_same_weights(tmp_path: Path, tiny_teacher: Teacher):
    artifacts.save_teacher(tiny_teacher, tmp_path / "source")
    teacher, metrics = Stage(tmp_path)(dsl.Model, "teacher"), Stage(tmp_path).metrics()

    section = {"source": str(tmp_path / "source")}
    handed_on = fetch_teacher.python_func(section=section, identity="", teacher=teacher, metrics=metrics)

    fetched = artifacts.load_teacher(teacher.path).network.state_dict()
    assert all(torch.equal(fetched[name], weights) for name, weights in tiny_teacher.network.state_dict().items())
    assert handed_on == ({"teacher": artifacts.digest_of(teacher.path)}, "source")
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
            section={"source": str(tmp_path / "nowhere")},
            identity="",
            teacher=stage(dsl.Model, "t"),
            metrics=stage.metrics(),
        )
    with pytest.raises(ResproutError, match=r"sparsity.*1\.5"):
        pruned(stage, {**PRUNING, "sparsity": 1.5})


def test_extract_statistics_counts_what_it_read(stage: Stage):
    statistics = artifacts.load_statistics(stage.folder / "statistics")

    assert len(statistics.layers) == 9
    assert input_names(stage.folder / "statistics") == ["teacher"]


def test_more_dreams_than_a_stage_can_hold_are_refused_before_they_are_made(stage: Stage):
    with pytest.raises(RecipeError, match=r"synthesis\.num_images: 100,000,000,000 images of 3x16x16 need"):
        extract_statistics.python_func(
            teacher=stage(dsl.Model, "teacher"),
            digests=stage.digests("teacher"),
            num_dreams=10**11,
            statistics=stage(dsl.Artifact, "unneeded"),
        )
    assert not (stage.folder / "unneeded").exists()


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


def test_dreams_that_hardly_came_to_match_the_statistics_are_told_of(stage: Stage, capsys: pytest.CaptureFixture[str]):
    for learning_rate, told in ((1e-6, True), (0.1, False)):
        dreamt(stage, {**SYNTHESIS, "iterations": 20.0, "learning_rate": learning_rate})
        assert ("note: the BatchNorm loss hardly fell (" in capsys.readouterr().out) is told


def test_shards_of_different_recipes_are_not_put_together(stage: Stage):
    dreamt(stage, num_shards=2)
    dreamt(stage, {**SYNTHESIS, "iterations": 4.0}, num_shards=3)
    shards = [stage(dsl.Dataset, "shard-0-of-2"), stage(dsl.Dataset, "shard-2-of-3")]

    with pytest.raises(ResproutError, match=r"shard-2-of-3 was made with other settings.*than .*shard-0-of-2"):
        artifacts.save_merged(
            artifacts.load_dreams(stage.folder / "dreams"), stage.folder / "mixed", shards=[it.path for it in shards]
        )
    made = [{**stage.digests("teacher", "statistics"), "shard": artifacts.digest_of(shards[0].path)}]
    with pytest.raises(ResproutError, match="not each of 3 once"):
        merge_dreams.python_func(
            shards=shards[:1], digests=made, dreams=stage(dsl.Dataset, "mixed"), metrics=stage.metrics()
        )


def test_prune_removes_the_share_that_the_section_asks_for(stage: Stage):
    dreamt(stage)
    student, metrics = pruned(stage)

    assert artifacts.load_student(student.path).mask.sparsity == pytest.approx(0.5, abs=1e-3)
    assert student.metadata["method"] == "global_magnitude"
    assert student.metadata["display_name"] == "pruned student, 50.0 % sparse"
    assert metrics.metadata["sparsity_percent"] == pytest.approx(50, abs=0.1)
    assert input_names(Path(student.path)) == ["teacher", "dreams"]


def test_prune_says_what_it_left_alone(stage: Stage, tiny_teacher: Teacher, capsys: pytest.CaptureFixture[str]) -> None:
    dreamt(stage)
    for weight in (parameter for parameter in tiny_teacher.network.parameters() if parameter.ndim > 1):
        weight.mul_(weight.abs() > weight.abs().quantile(0.6))
    artifacts.save_teacher(tiny_teacher, stage.folder / "teacher")
    pruned(stage)
    said = "the teacher is sparser (60.0 %) than asked (50 %): its zeros stay, nothing more goes"
    assert said in map(remark, capsys.readouterr().out.splitlines())


def test_recover_and_evaluate_leave_students_scores_and_pages(stage: Stage, tiny_images: Any, tiny_teacher: Teacher):
    dreamt(stage)
    student, _ = pruned(stage)
    students = recovered(stage, student)
    save_images(stage.folder / "data.safetensors", tiny_images, tiny_teacher)
    section = {
        "data": str(stage.folder / "data.safetensors"),
        "max_images": 40.0,
        "measure_latency": True,
        "latency_batch_size": 2.0,
    }
    test_set = labelled(stage, section)
    outputs = evaluated(stage, {"student": student, **students}, test_set, section)

    before = artifacts.load_student(student.path).mask.keep
    after = artifacts.load_student(students["recovered"].path)
    assert all(torch.equal(after.mask.keep[name], kept) for name, kept in before.items())
    made = [stage.folder / name for name in ("shard-0-of-1", "student", "repaired", "recovered", "evaluation")]
    assert {artifacts.read_manifest(path).computed_on for path in made} == {computed_on(devices(0))}
    scores = artifacts.load_evaluation(stage.folder / "evaluation")
    assert [score.name for score in scores.scores] == ["teacher", "pruned", "repaired", "recovered"]
    top1 = scores.score("recovered").top1
    assert outputs["metrics"].metadata["recovered_top1_percent"] == pytest.approx(100 * top1)
    assert_costs_are_logged(scores, outputs["metrics"], Path(students["recovered"].path))
    matrix = outputs["confusion"].metadata["confusionMatrix"]
    assert sum(sum(row["row"]) for row in matrix["rows"]) == 40
    told = {**students, **outputs, "digests": dsl.Artifact()}
    named = {name: output.metadata.get("display_name") for name, output in told.items()}
    assert named["repaired"] == "repaired student, 50.0 % sparse"
    assert named["evaluation"] == "scores of teacher and students"
    assert (named["report"], named["summary"]) == ("report", "summary")
    assert "<html" in (stage.folder / "report").read_text().lower()
    summary = json.loads((stage.folder / "evaluation" / "summary.json").read_text())
    assert summary["teacher_fetched_from"] == "s3://bucket/teachers/net"
    assert '<span class="mono">s3://bucket/teachers/net</span>' in (stage.folder / "report").read_text()
    assert f"| recovered | {100 * top1:.1f} % |" in (stage.folder / "summary").read_text()


def test_a_student_that_lost_channels_goes_through_the_same_stages(stage: Stage):
    dreamt(stage)
    student, metrics = pruned(stage, {"method": "structured", "macs_ratio": 0.5, "round_to": 2.0})
    students = recovered(stage, student)
    evaluated(stage, {"student": student, **students}, labelled(stage, {}), {})

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
    promise = {"min_agreement": 0.1} if sparsity == "auto" else {}
    student, _ = pruned(stage, {"method": "global_magnitude", "sparsity": sparsity, **promise})
    students = dict.fromkeys(("student", "repaired", "recovered"), student)
    outputs = evaluated(stage, students, labelled(stage, {}), {})

    choice, page = provenance.sparsity_choice(student.path), Path(outputs["report"].path).read_text()
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


def test_custom_code_that_the_teacher_stage_let_in_runs_in_later_stages(
    tmp_path: Path, tiny_teacher: Teacher, tiny_dreams: DreamSet
):
    info = replace(
        tiny_teacher.info,
        architecture="resprout.models.cifar:thin_resnet",
        arguments={"depth": 8, "channels": 3, "width": 8},
        custom_code=True,
    )
    artifacts.save_teacher(replace(tiny_teacher, info=info), tmp_path / "teacher")
    stage = Stage(tmp_path)
    artifacts.save_dreams(tiny_dreams, tmp_path / "dreams", input=info.input)

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
        digests=stage.digests("teacher", "dreams"),
        section={**PRUNING, "exclude": ["layer*"]},
        gpus="0",
        sensitivity=found,
        metrics=metrics,
        page=page,
    )

    scanned = artifacts.load_sensitivity(found.path)
    assert scanned.layers == ("conv1.weight", "fc.weight")
    assert metrics.metadata["layers"] == 2
    assert metrics.metadata["most_lost_percent"] == 100 * scanned.ranking()[0][1]
    assert found.metadata["most_sensitive"] == scanned.ranking()[0][0]
    assert input_names(Path(found.path)) == ["teacher", "dreams"]
    assert artifacts.digest_of(stage.folder / "teacher") in Path(page.path).read_text()


def test_every_figure_that_is_logged_is_in_its_artifacts_file_too(
    stage: Stage, tiny_images: Any, tiny_teacher: Teacher
):
    """KFP's UI has an error in the place of a preview where an artifact has no file."""
    dreamt(stage, num_shards=2)
    student, _ = pruned(stage)
    students = {"student": student, **recovered(stage, student)}
    save_images(stage.folder / "data.safetensors", tiny_images, tiny_teacher)
    test_set = labelled(stage, {"data": str(stage.folder / "data.safetensors")})
    outputs = evaluated(stage, students, test_set, {})

    assert len(stage.logged) == 4  # dreams, pruned, recovered, scores
    for metrics in stage.logged:
        assert metrics.metadata
        assert json.loads(Path(metrics.path).read_text()) == metrics.metadata
    confusion = outputs["confusion"]
    assert json.loads(Path(confusion.path).read_text()) == confusion.metadata != {}


def test_without_labels_there_is_no_confusion_and_a_file_all_the_same(stage: Stage):
    dreamt(stage)
    student, _ = pruned(stage)
    students = dict.fromkeys(("student", "repaired", "recovered"), student)
    confusion = evaluated(stage, students, labelled(stage, {}), {})["confusion"]

    assert json.loads(Path(confusion.path).read_text()) == confusion.metadata == {}


@pytest.mark.parametrize("component", [synthesize, prune, recover, evaluate, scan_sensitivity], ids=lambda it: it.name)
def test_a_stage_that_asked_for_a_gpu_and_sees_none_ends_before_it_reads_anything(
    component: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resprout.devices._seen", lambda: (0, ""))
    nothing = dict.fromkeys(inspect.signature(component.python_func).parameters)

    with pytest.raises(DeviceError, match="asked for 2 GPUs and sees none"):
        component.python_func(**nothing | {"gpus": "2"})


def test_without_a_place_to_publish_the_stage_says_so(stage: Stage, capsys: pytest.CaptureFixture[str]):
    publication = stage(dsl.Artifact, "publication")
    publish.python_func(
        recovered=stage(dsl.Model, "recovered"),
        evaluation=stage(dsl.Artifact, "evaluation"),
        report=stage(dsl.HTML, "report"),
        digests={},
        section={"name": "tiny"},
        publication=publication,
    )

    assert "publish_to is empty: nothing is published" in capsys.readouterr().out
    assert publication.metadata == {"display_name": "not published"}
    assert json.loads(Path(publication.path).read_text()) == {}


@pytest.mark.usefixtures("storage_configured")
def test_what_is_published_is_what_the_stages_made(stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    dreamt(stage)
    student, _ = pruned(stage)
    students = dict.fromkeys(("student", "repaired", "recovered"), student)
    outputs = evaluated(stage, students, labelled(stage, {}), {})
    publication = stage(dsl.Artifact, "publication")
    publish.python_func(
        recovered=student,
        evaluation=outputs["evaluation"],
        report=outputs["report"],
        digests=outputs["digests"],
        section={"to": f"s3://resprout/tests/{tmp_path.name}", "name": "tiny", "version": "1"},
        publication=publication,
    )

    published = json.loads(Path(publication.path).read_text())
    assert published["address"] == publication.metadata["address"] == f"s3://resprout/tests/{tmp_path.name}/tiny/1"
    assert published["files"]["report.html"] == artifacts.sha256_of(Path(outputs["report"].path))
    assert publication.metadata["display_name"] == "tiny 1"
    told = outcome.find(capsys.readouterr().out.splitlines(), "publish")
    assert told == {"address": published["address"], "digest": outputs["digests"]["recovered"]}


@pytest.mark.parametrize(("limit", "kept"), [(0.4, True), (0.6, False)])
def test_a_gate_tells_each_limit_and_fails_where_one_is_broken(
    stage: Stage, limit: float, kept: bool, capsys: pytest.CaptureFixture[str]
):
    evaluation, verdict = stage(dsl.Artifact, "evaluation"), stage(dsl.Markdown, "verdict")
    texts = {"metrics": {"recovered.sparsity": 0.5}, "summary": {"table": ["a table"], "verdict": "a verdict"}}

    def write(folder: Path) -> None:
        for name, text in texts.items():
            (folder / f"{name}.json").write_text(json.dumps(text))

    artifacts.save_artifact(evaluation.path, "evaluation", extras=write)

    with nullcontext() if kept else pytest.raises(ResproutError, match="min_sparsity: at least 60 %"):
        gate.python_func(
            evaluation=evaluation,
            digests=stage.digests("evaluation"),
            section={"min_sparsity": limit},
            verdict=verdict,
        )
    assert "| `min_sparsity` |" in Path(verdict.path).read_text()
    assert verdict.metadata == {"display_name": "gate", "limits": 1}
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["a table", "a verdict"]
    assert outcome.find(said, "gate")["passed"] is kept  # type: ignore[index]


def test_a_figure_that_is_no_number_is_left_out_of_kfps_metadata(tmp_path: Path) -> None:
    metrics = dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics"))

    log(metrics, {"held_out_kl": float("nan"), "ce": float("-inf"), "agreement": 0.5})

    assert metrics.metadata == {"agreement": 0.5}
    assert json.loads(Path(metrics.path).read_text()) == {"agreement": 0.5}
