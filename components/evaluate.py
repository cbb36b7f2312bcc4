"""Component: how well everybody does, for programs, for KFP's UI and for people."""

from kfp import dsl

from components._image import GPU_IMAGE


@dsl.component(base_image=GPU_IMAGE, install_kfp_package=False)
def evaluate(
    teacher: dsl.Input[dsl.Model],
    statistics: dsl.Input[dsl.Artifact],
    dreams: dsl.Input[dsl.Dataset],
    pruned: dsl.Input[dsl.Model],
    repaired: dsl.Input[dsl.Model],
    recovered: dsl.Input[dsl.Model],
    section: dict,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
):
    """Score the teacher and its students; write the report."""
    from pathlib import Path

    from resprout import artifacts, datasets, figures, provenance, recipe
    from resprout import evaluation as stage
    from resprout import report as pages
    from resprout.progress import print_lines

    settings = recipe.section("evaluation", section)
    network = artifacts.load_teacher(teacher.path, allow_custom_code=True)
    folders = {"pruned": pruned.path, "repaired": repaired.path, "recovered": recovered.path}
    students = {name: artifacts.load_student(path, allow_custom_code=True) for name, path in folders.items()}
    made = artifacts.load_dreams(dreams.path)
    data = settings.data and datasets.load_labelled(settings.data, info=network.info, max_images=settings.max_images)

    result = stage.evaluate(network, students, made, data, batch_size=settings.batch_size, report=print_lines())

    inputs = {"teacher": teacher.path, "statistics": statistics.path, "dreams": dreams.path, **folders}
    artifacts.save_evaluation(result, evaluation.path, section=settings, inputs=inputs)
    record = provenance.record_of("evaluation", evaluation.path)
    page = pages.render(
        result,
        verdict=stage.verdict(result),
        recipe=provenance.recipe_of(record),
        info=network.info,
        statistics=artifacts.load_statistics(statistics.path),
        dreams=made,
        mask=students["recovered"].mask,
        recovery_curves=provenance.recovery_curves(recovered.path),
        provenance=record,
    )
    Path(report.path).write_text(page, encoding="utf-8")
    Path(summary.path).write_text(figures.markdown_of(result), encoding="utf-8")
    if matrix := figures.confusion_of(result):
        confusion.log_confusion_matrix(*matrix)
    for name, value in figures.of_evaluation(result).items():
        metrics.log_metric(name, value)
