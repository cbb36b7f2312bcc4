"""Component: how much each layer alone can spare."""

from kfp import dsl

from components._digests import Digests
from components._image import on_gpu


@on_gpu()
def scan_sensitivity(
    teacher: dsl.Input[dsl.Model],
    dreams: dsl.Input[dsl.Dataset],
    digests: dict,
    section: dict,
    gpus: str,
    sensitivity: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
) -> Digests:
    """Prune each layer alone, more and more of it, and compare the answers with the teacher's.

    Args:
        teacher: the trained network.
        dreams: the held-out ones are asked about, others re-estimate BatchNorm.
        digests: of the artifacts that it reads.
        section: the recipe's pruning section, of which the layers that it excludes are left out.
        gpus: how many it has asked for; "0" computes with what is there.
        sensitivity: every figure, also as sensitivity.csv.
        metrics: what the most and the least sensitive layer cost.
        page: the plot and the heat map.
    """
    from pathlib import Path

    from components._metrics import log
    from resprout import artifacts, figures, recipe
    from resprout import report as pages
    from resprout import sensitivity as scans
    from resprout.devices import computed_on, devices
    from resprout.progress import print_lines

    device = devices(int(gpus))[0]
    settings = recipe.SensitivitySection(exclude=recipe.section("pruning", section).exclude)
    inputs = artifacts.records({"teacher": teacher.path, "dreams": dreams.path}, digests)
    network = artifacts.load_teacher(teacher.path, sha256=digests["teacher"], allow_custom_code=True)
    made = artifacts.load_dreams(dreams.path, sha256=digests["dreams"])
    found = scans.scan(network, made, settings, report=print_lines(), device=device)

    html = pages.render_sensitivity(
        found, info=network.info, inputs={record["name"]: record["sha256"] for record in inputs}
    )
    digest = artifacts.save_sensitivity(
        found,
        sensitivity.path,
        section=settings,
        inputs=inputs,
        page=html,
        computed_on=computed_on([device]),
    )
    Path(page.path).write_text(html, encoding="utf-8")
    sensitivity.metadata.update(figures.name_of_sensitivity(found))
    page.metadata["display_name"] = "sensitivity"
    log(metrics, figures.of_sensitivity(found))
    return Digests({**digests, "sensitivity": digest})
