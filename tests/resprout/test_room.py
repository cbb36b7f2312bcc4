from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from resprout import artifacts
from resprout.errors import RecipeError
from resprout.room import COPIES, check_room, memory_limit
from resprout.types import DreamGroup, DreamShard, InputSpec

GIB = 1 << 30


def test_more_dreams_than_fit_are_refused_before_they_are_made() -> None:
    with pytest.raises(RecipeError, match=r"27,128 images of 3x224x224 need 38\.\d GiB .* there are 8\.0") as refusal:
        check_room(27_128, (3, 224, 224), limit=8 * GIB)
    assert "placement.cpu_stage_memory 39Gi" in refusal.value.now
    check_room(27_128, (3, 224, 224), limit=39 * GIB)
    check_room(1152, (3, 224, 224), limit=4 * GIB)


def test_as_many_as_the_message_says_do_fit() -> None:
    with pytest.raises(RecipeError, match="need") as refusal:
        check_room(100_000, (3, 64, 64), limit=2 * GIB)
    number = int(refusal.value.now.split("no more than ")[1].split()[0].replace(",", ""))
    check_room(number, (3, 64, 64), limit=2 * GIB)
    with pytest.raises(RecipeError):
        check_room(number + 1, (3, 64, 64), limit=2 * GIB)


def test_a_containers_limit_goes_before_the_machines(tmp_path: Path) -> None:
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "limit").write_text("1048576\n")
    machine = memory_limit([])
    assert memory_limit([str(tmp_path / "absent"), str(tmp_path / "max")]) == machine
    assert memory_limit([str(tmp_path / "limit")]) == 1_048_576


MERGING = """
import re, sys
from pathlib import Path
import resprout.artifacts.pictures
from resprout import artifacts, synthesis

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

before = most()
merged = synthesis.merge([artifacts.load_shard(sys.argv[1])])
artifacts.save_merged(merged, sys.argv[1] + "-merged", shards=[sys.argv[1]])
print(most() - before)
"""


@pytest.mark.slow
def test_merging_takes_no_more_copies_than_are_counted(tmp_path: Path) -> None:
    count, shape = 3_000, (3, 64, 64)
    group = DreamGroup(0, torch.ones(count, *shape).half(), torch.zeros(count, dtype=torch.int64), False, {})
    spec = InputSpec(shape, (0.5,) * 3, (0.5,) * 3)
    artifacts.save_shard(DreamShard([group], 1, 2), tmp_path / "shard", input=spec)

    run = [sys.executable, "-W", "ignore", "-c", MERGING, str(tmp_path / "shard")]
    done = subprocess.run(run, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    size = group.images.numel() * 2
    assert size < int(done.stdout) < COPIES * size
