"""What is refused before the first expensive stage."""

from __future__ import annotations

import re
from typing import Any

import pytest

from resprout.errors import ResproutError
from tests.components.stages import (
    IMAGES,
    PRUNING,
    SYNTHESIS,
    planned,
)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"recovery": {"epoch": 3}}, "recovery.epoch: no such field; did you mean epochs?"),
        ({"gate": {"min_agreement": 2.0}, "pruning": {"sparsity": 1.5}}, "pruning.sparsity"),
        ({"gate": {"min_agreement": 2.0}, "pruning": {"sparsity": 1.5}}, "gate.min_agreement"),
        ({"gate": {"max_latency_ratio": 1.0}}, "needs evaluation.measure_latency"),
        ({"student_aware": True}, "synthesis.student_weight is 0"),
        ({"synthesis": SYNTHESIS | {"student_weight": 1.0}}, "student_aware: is false"),
        ({"pruned_on_dreams": True}, "pruned_on_dreams: is true, and the pruning section says otherwise"),
        ({"pruning": PRUNING | {"rounds": 3}}, "set pruned_on_dreams to true"),
        ({"published": True}, "publishing.to says nowhere"),
        ({"collected": True}, "collected: is true, and synthesis.method is deep_inversion"),
        ({"synthesis": IMAGES}, "collected: is false, and synthesis.method is images"),
        (
            {"synthesis": IMAGES, "collected": True, "evaluation": {"data": "s3://bucket/train/"}},
            "synthesis.data: is evaluation.data",
        ),
        ({"num_shards": 9}, "num_shards"),
    ],
)
def test_inputs_that_make_no_sense_together_are_refused(inputs: dict[str, Any], said: str):
    with pytest.raises(ResproutError, match=re.escape(said)):
        planned(**({"synthesis": SYNTHESIS, "num_shards": 1} | inputs))


def test_real_images_need_no_shard_however_many_are_wanted():
    assert planned(IMAGES, 4, collected=True) == []
