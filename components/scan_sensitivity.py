"""Component: how much each layer alone can spare."""

from kfp import dsl

from components._image import GPU_IMAGE


@dsl.component(base_image=GPU_IMAGE, install_kfp_package=False)
def scan_sensitivity(
    teacher: dsl.Input[dsl.Model],
    dreams: dsl.Input[dsl.Dataset],
    section: dict,
    sensitivity: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
):
    """Prune each layer alone, more and more of it, and compare the answers with the teacher's.

    Args:
        teacher: the trained network.
        dreams: the held-out ones are asked about, others re-estimate BatchNorm.
        section: sparsities, repair_dreams and exclude; {} for the defaults.
        sensitivity: every figure, also as sensitivity.csv.
        metrics: what the most and the least sensitive layer cost.
        page: the plot and the heat map.
    """
    from pathlib import Path

    from resprout import artifacts, figures, recipe
    from resprout import report as pages
    from resprout import sensitivity as scans
    from resprout.progress import print_lines

    settings = recipe.validate(recipe.SensitivitySection, section, "section")
    network = artifacts.load_teacher(teacher.path, allow_custom_code=True)
    found = scans.scan(network, artifacts.load_dreams(dreams.path), settings, report=print_lines())

    inputs = {"teacher": teacher.path, "dreams": dreams.path}
    digests = {name: artifacts.digest_of(path) for name, path in inputs.items()}
    html = pages.render_sensitivity(found, info=network.info, inputs=digests)
    artifacts.save_sensitivity(found, sensitivity.path, section=settings, inputs=inputs, page=html)
    Path(page.path).write_text(html, encoding="utf-8")
    sensitivity.metadata.update(figures.name_of_sensitivity(found))
    page.metadata["display_name"] = "sensitivity"
    for name, value in figures.of_sensitivity(found).items():
        metrics.log_metric(name, value)
