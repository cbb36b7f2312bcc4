"""Component: how well everybody does, for programs, for KFP's UI and for people."""

from kfp import dsl

from components._digests import Digests
from components._image import on_gpu


@on_gpu()
def evaluate(
    teacher: dsl.Input[dsl.Model],
    statistics: dsl.Input[dsl.Artifact],
    dreams: dsl.Input[dsl.Dataset],
    student: dsl.Input[dsl.Model],
    repaired: dsl.Input[dsl.Model],
    recovered: dsl.Input[dsl.Model],
    test_set: dsl.Input[dsl.Dataset],
    digests: dict,
    test_set_digests: dict,
    fetched_from: str,
    section: dict,
    gpus: str,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
) -> Digests:
    """Score the teacher and its students, say what they cost, write the report.

    Args:
        teacher: the trained network.
        statistics: its BatchNorm statistics, for the report.
        dreams: the held-out ones give agreement without labels.
        student: the pruned one, as pruning left it.
        repaired: the student with its BatchNorm re-estimated.
        recovered: the student that is the result.
        test_set: labelled images, or none; no other stage is given them.
        digests: of the artifacts that it reads.
        test_set_digests: the test set's.
        fetched_from: where the teacher was, beside what its folder claims.
        section: the recipe's evaluation section.
        gpus: how many it has asked for; "0" computes with what is there.
        evaluation: every score, also as metrics.json.
        metrics: the same for KFP's comparison of runs, in percent.
        confusion: which classes the recovered student confuses.
        report: one page that opens offline.
        summary: the verdict and the table.
    """
    import json
    from pathlib import Path

    from components._metrics import log
    from resprout import artifacts, figures, provenance, recipe
    from resprout import evaluation as stage
    from resprout import report as pages
    from resprout.devices import computed_on, devices
    from resprout.progress import print_lines

    device = devices(int(gpus))[0]
    settings = recipe.section("evaluation", section)
    expected = {**digests, **test_set_digests}
    folders = {"teacher": teacher.path, "statistics": statistics.path, "dreams": dreams.path, "test_set": test_set.path}
    folders |= {"student": student.path, "repaired": repaired.path, "recovered": recovered.path}
    inputs = artifacts.records(folders, expected)
    network = artifacts.load_teacher(teacher.path, sha256=expected["teacher"], allow_custom_code=True)
    remembered = artifacts.load_statistics(statistics.path, sha256=expected["statistics"])
    students = {
        label: artifacts.load_student(folders[name], sha256=expected[name], allow_custom_code=True)
        for label, name in {"pruned": "student", "repaired": "repaired", "recovered": "recovered"}.items()
    }
    made = artifacts.load_dreams(dreams.path, sha256=expected["dreams"])
    data = artifacts.load_test_set(test_set.path, sha256=expected["test_set"])
    shipped = {"teacher": teacher.path, "recovered": recovered.path}

    result = stage.evaluate(
        network,
        students,
        made,
        data,
        batch_size=settings.batch_size,
        sizes={name: artifacts.stored_size(path) for name, path in shipped.items()},
        latency_batch_size=settings.latency_batch_size if settings.measure_latency else None,
        report=print_lines(),
        device=device,
    )
    verdict = stage.verdict(result)

    digest = artifacts.save_evaluation(
        result,
        evaluation.path,
        section=settings,
        # one without images is no input
        inputs=[record for record in inputs if data is not None or record["name"] != "test_set"],
        computed_on=computed_on([device]),
        summary={**stage.summary_of(result), "teacher_fetched_from": fetched_from},
    )
    record = provenance.record_of("evaluation", evaluation.path, sha256=digest)
    page = pages.render(
        result,
        verdict=verdict,
        recipe=provenance.recipe_of(record),
        info=network.info,
        statistics=remembered,
        dreams=made,
        mask=students["recovered"].kept,
        recovery_curves=provenance.recovery_curves(recovered.path, sha256=expected["recovered"]),
        provenance=record,
        fetched_from=fetched_from,
        choice=provenance.sparsity_choice(student.path, sha256=expected["student"]),
    )
    Path(report.path).write_text(page, encoding="utf-8")
    Path(summary.path).write_text(figures.markdown_of(result), encoding="utf-8")
    evaluation.metadata.update(figures.name_of_evaluation(result, verdict))
    report.metadata["display_name"] = "report"
    summary.metadata["display_name"] = "summary"
    if matrix := figures.confusion_of(result):
        confusion.log_confusion_matrix(*matrix)
    Path(confusion.path).write_text(json.dumps(confusion.metadata) + "\n")
    log(metrics, figures.of_evaluation(result))
    return Digests({**digests, "evaluation": digest, "report": artifacts.sha256_of(report.path)})
