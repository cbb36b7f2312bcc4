"""Component: how well everybody does, for programs, for KFP's UI and for people."""

from kfp import dsl

from components._image import on_gpu


@on_gpu()
def evaluate(
    teacher: dsl.Input[dsl.Model],
    statistics: dsl.Input[dsl.Artifact],
    dreams: dsl.Input[dsl.Dataset],
    pruned: dsl.Input[dsl.Model],
    repaired: dsl.Input[dsl.Model],
    recovered: dsl.Input[dsl.Model],
    test_set: dsl.Input[dsl.Dataset],
    section: dict,
    gpus: str,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
):
    """Score the teacher and its students, say what they cost, write the report.

    Args:
        teacher: the trained network.
        statistics: its BatchNorm statistics, for the report.
        dreams: the held-out ones give agreement without labels.
        pruned: the student as pruning left it.
        repaired: the student with its BatchNorm re-estimated.
        recovered: the student that is the result.
        test_set: labelled images, or none; no other stage is given them.
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
    network = artifacts.load_teacher(teacher.path, allow_custom_code=True)
    folders = {"pruned": pruned.path, "repaired": repaired.path, "recovered": recovered.path}
    students = {name: artifacts.load_student(path, allow_custom_code=True) for name, path in folders.items()}
    made = artifacts.load_dreams(dreams.path)
    data = artifacts.load_test_set(test_set.path)
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

    inputs = {"teacher": teacher.path, "statistics": statistics.path, "dreams": dreams.path, **folders}
    if data is not None:
        inputs["test_set"] = test_set.path
    artifacts.save_evaluation(
        result,
        evaluation.path,
        section=settings,
        inputs=inputs,
        computed_on=computed_on([device]),
        summary=stage.summary_of(result),
    )
    record = provenance.record_of("evaluation", evaluation.path)
    page = pages.render(
        result,
        verdict=verdict,
        recipe=provenance.recipe_of(record),
        info=network.info,
        statistics=artifacts.load_statistics(statistics.path),
        dreams=made,
        mask=students["recovered"].kept,
        recovery_curves=provenance.recovery_curves(recovered.path),
        provenance=record,
        choice=provenance.sparsity_choice(pruned.path),
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
