"""What a run's last stages tell of its end is found again in a log, whatever else stands there."""

from __future__ import annotations

from resprout import gate, outcome
from resprout.evaluation import table, verdict
from resprout.recipe import GateSection
from resprout.types import Evaluation, ModelScore


def test_the_gate_tells_figures_and_verdict_to_people_and_to_programs() -> None:
    shares = {"teacher": 0.922, "pruned": 0.416, "repaired": 0.8, "recovered": 0.9065}
    scores = tuple(ModelScore(name, None, None, top1=top1) for name, top1 in shares.items())
    evaluation = Evaluation(scores, {}, 1000, 0, ("a", "b"))
    checks = gate.judge({"recovered.top1": 0.9065}, GateSection(min_top1=0.95))

    metrics = {f"{name}.top1": top1 for name, top1 in shares.items()} | {"recovered.sparsity": 0.75}
    summary = {"table": table(evaluation), "verdict": verdict(evaluation)}
    lines = ["a warning", *outcome.of_gate(metrics, summary, checks).splitlines(), "progress x 1/2 y"]
    found = outcome.find(lines, "gate")

    assert "teacher              92.2 %" in lines
    assert found is not None
    assert found["passed"] is False
    assert found["table"] == [line for line in lines if line in found["table"]]
    assert found["verdict"] in lines
    assert found["figures"]["recovered"] == {"top1": 0.9065}


def test_what_was_not_told_is_not_found() -> None:
    told = outcome.told("publish", {"address": "s3://models/a/1"})

    assert outcome.find([told], "publish") == {"address": "s3://models/a/1"}
    assert outcome.find([told], "gate") is None
    assert outcome.find([told[:-3]], "publish") is None  # a log that was cut
