"""What is decided before a run computes anything: which bytes its addresses mean."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resprout import recipe as recipe_module
from resprout.errors import ArtifactError, RecipeError, StorageError
from resprout.planning import check_unchanged, plan
from resprout.recipe import Recipe

ROOT = Path(__file__).parents[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"


class Store:
    """What lies in object storage, and what was asked of it."""

    def __init__(self, **lying: str) -> None:
        self.lying = {f"s3://bucket/{name}": identity for name, identity in lying.items()}
        self.asked: list[str] = []

    def __call__(self, address: str) -> str:
        self.asked.append(address)
        if address not in self.lying:
            raise StorageError(f"nothing at {address}")
        return self.lying[address]


def recipe_of(**sections: Any) -> Recipe:
    fields = {"teacher": {"source": "torchvision://resnet18"}, **sections}
    made: Recipe = recipe_module.validate(Recipe, fields, "test")
    return made


def test_each_address_in_storage_is_asked_for_its_bytes_once():
    store = Store(teacher="sha256:1", test="etag:2", train="folder:3")
    made = plan(
        recipe_of(
            teacher={"source": "s3://bucket/teacher"},
            synthesis={"method": "images", "data": "s3://bucket/train"},
            evaluation={"data": "s3://bucket/test"},
        ),
        store,
    )

    assert (made.teacher, made.test_set, made.images) == ("sha256:1", "etag:2", "folder:3")
    assert sorted(store.asked) == sorted(store.lying)
    assert made.shards == []


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"teacher": {"source": "examples/teacher"}, "evaluation": {"data": "data/test"}},
        {"teacher": {"source": "https://host/net.pt", "sha256": "0" * 64, "architecture": "resnet18"}},
        {"publishing": {"to": "s3://bucket/models"}, "placement": {"checkpoints": "s3://bucket/checkpoints"}},
    ],
    ids=str,
)
def test_what_says_its_bytes_itself_is_looked_up_nowhere(sections: dict[str, Any]):
    store = Store()
    made = plan(recipe_of(**sections), store)
    assert (made.teacher, made.test_set, made.images) == ("", "", "")
    assert not store.asked
    assert made.shards == ["1/1"]


def test_where_nothing_lies_no_run_is_planned():
    with pytest.raises(StorageError, match="nothing at s3://bucket/teacher"):
        plan(recipe_of(teacher={"source": "s3://bucket/teacher"}), Store())
    few = {"num_images": 256, "num_held_out": 0}
    with pytest.raises(RecipeError, match="8 shards cannot share 2 groups"):
        plan(recipe_of(synthesis=few, placement={"num_shards": 8}), Store())


@pytest.mark.parametrize(
    ("sections", "lacking"),
    [
        ({"gate": {"min_top1": 0.9}}, "evaluation.data"),
        ({"gate": {"max_top1_drop_points": 2}}, "evaluation.data"),
        ({"gate": {"min_agreement": 0.9}, "synthesis": {"num_held_out": 0}}, "synthesis.num_held_out is 0"),
    ],
)
def test_a_limit_on_what_is_not_measured_is_refused_before_the_work(sections: dict[str, Any], lacking: str):
    with pytest.raises(RecipeError) as refused:
        plan(recipe_of(**sections), Store())

    assert lacking in refused.value.what
    assert refused.value.now
    measured = {**sections, "evaluation": {"data": "there"}, "synthesis": {}}
    assert plan(recipe_of(**measured), Store()).recipe.gate == recipe_of(**measured).gate


def test_a_run_has_a_name_to_publish_under_and_all_else_is_as_it_was():
    recipe = recipe_of(name="mine", publishing={"version": "1"})
    made = plan(recipe, Store()).recipe
    assert made.publishing.name == "mine"
    assert made.model_copy(update={"publishing": recipe.publishing}) == recipe
    assert plan(recipe_of(name="mine", publishing={"name": "other"}), Store()).recipe.publishing.name == "other"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in a local Hugging Face cache whose main branch is at REVISION; offline."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    root = tmp_path / "models--owner--net"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(REVISION)
    (root / "snapshots" / REVISION).mkdir(parents=True)
    (root / "snapshots" / REVISION / "config.json").write_text("{}")
    return root


@pytest.mark.parametrize("at", ["", "@main", f"@{REVISION}"])
def test_a_branch_on_the_hub_becomes_its_commit(hub: Path, at: str):
    made = plan(recipe_of(name="mine", teacher={"source": f"hf://owner/net{at}", "num_classes": 3}), Store())

    assert made.recipe.teacher.source == f"hf://owner/net@{REVISION}"
    assert made.recipe.teacher.num_classes == 3
    assert made.teacher == ""
    assert f"teacher     hf://owner/net@{REVISION}" in made.as_text()


def test_a_repository_that_is_not_there_is_refused_before_the_work(hub: Path):
    with pytest.raises(ArtifactError, match=r"config\.json of hf://nobody/nothing cannot be fetched"):
        plan(recipe_of(teacher={"source": "hf://nobody/nothing"}), Store())


def test_people_are_told_which_bytes_were_found():
    store = Store(teacher="sha256:1", test="etag:2")
    sections = {"evaluation": {"data": "s3://bucket/test"}, "publishing": {"to": "s3://bucket/models"}}
    told = plan(recipe_of(name="mine", teacher={"source": "s3://bucket/teacher"}, seed=7, **sections), store).as_text()

    assert told.splitlines() == [
        "recipe      mine, seed 7, pruning by optimal_brain",
        "teacher     s3://bucket/teacher sha256:1",
        "test set    s3://bucket/test etag:2",
        "publish to  s3://bucket/models",
    ]


def test_bytes_that_changed_since_are_refused():
    store = Store(teacher="sha256:1")
    check_unchanged("s3://bucket/teacher", "sha256:1", store)
    with pytest.raises(ArtifactError, match="s3://bucket/teacher has changed since the run was planned") as refused:
        check_unchanged("s3://bucket/teacher", "sha256:0", store)
    assert "start the run again" in refused.value.now


def test_what_needs_no_storage_is_not_asked_whether_it_changed():
    store = Store()
    check_unchanged("torchvision://resnet18", "", store)
    assert not store.asked


@pytest.mark.parametrize(
    "modules",
    [
        "resprout.planning, resprout.storage.lookup, components.plan",
        "components.plan, resprout.recipe.form, components._asked",
        "components.gate, resprout.gate, resprout.recipe",
        "components.publish, resprout.storage, resprout.progress",
    ],
)
def test_what_only_decides_starts_without_torch(modules: str):
    """Torch takes seconds, and memory for which a run's first stage and its gate do not ask."""
    script = f"import sys, {modules}; print([name for name in ('torch', 'kfp.compiler') if name in sys.modules])"
    environment = {**os.environ, "_KFP_RUNTIME": "true"}

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")
