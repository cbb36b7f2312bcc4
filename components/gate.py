"""Component: the end of the run where its result does not keep what the recipe promises."""

from kfp import dsl

from components._image import on_cpu


@on_cpu()
def gate(evaluation: dsl.Input[dsl.Artifact], digests: dict, section: dict, verdict: dsl.Output[dsl.Markdown]):
    """Hold the result against the recipe's limits, say how the run ended, and fail where it breaks one.

    Args:
        evaluation: what was measured.
        digests: the evaluation's.
        section: the recipe's gate section.
        verdict: each limit, promised and measured.
    """
    import json
    from pathlib import Path

    from resprout import gate as stage
    from resprout import manifest, outcome, recipe

    manifest.check(evaluation.path, "evaluation", sha256=digests["evaluation"])
    metrics, summary = (
        json.loads((Path(evaluation.path) / f"{name}.json").read_text()) for name in ("metrics", "summary")
    )
    checks = stage.judge(metrics, recipe.section("gate", section))
    text = stage.as_markdown(checks)
    Path(verdict.path).write_text(text, encoding="utf-8")
    verdict.metadata.update({"display_name": "gate", "limits": len(checks)})
    print(outcome.of_gate(metrics, summary, checks), flush=True)
    stage.require(checks, verdict=summary["verdict"])
