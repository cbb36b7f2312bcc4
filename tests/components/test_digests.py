"""What lies in the artifacts' bucket may be changed between two stages: each later one refuses other bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from torch import Tensor, nn

from components.collect_images import collect_images
from components.evaluate import evaluate
from components.extract_statistics import extract_statistics
from components.fetch_teacher import fetch_teacher
from components.fetch_test_set import fetch_test_set
from components.gate import gate
from components.merge_dreams import merge_dreams
from components.prune import prune
from components.publish import publish
from components.recover import recover
from components.scan_sensitivity import scan_sensitivity
from components.synthesize import synthesize
from resprout import artifacts
from resprout.errors import ArtifactError
from resprout.types import Teacher
from tests.components.stages import GIVEN, IMAGES, PRUNING, RECOVERY, SYNTHESIS, Stage, save_images
from tests.resprout.sealing import resealed

READ_THE_MANIFEST_ALONE = ("fetch-test-set", "collect-images")


class Chain:
    """Every stage of every pipeline, run once, each on what those before it handed on; and how each is run again."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._stage = Stage(folder)
        self.folder = folder
        self.calls: dict[str, Callable[[], Any]] = {}
        fetched = self._ran(fetch_teacher, teacher=dsl.Model, section={"source": f"{folder}/source"})
        known = self._ran(
            extract_statistics, digests=fetched, teacher=dsl.Model, num_dreams=16, statistics=dsl.Artifact
        )
        data_section = {"data": str(data), "max_images": 24.0}
        tested = self._ran(
            fetch_test_set, digests=fetched, teacher=dsl.Model, test_set=dsl.Dataset, section=data_section
        )
        taken = {"digests": known, "teacher": dsl.Model, "dreams": dsl.Dataset}
        self._ran(collect_images, **taken, section=IMAGES | {"data": str(data)})
        read = {"teacher": dsl.Model, "statistics": dsl.Artifact}
        made = self._ran(
            synthesize, digests=known, **read, shard=dsl.Dataset, section=SYNTHESIS, share="1/1", checkpoints=""
        )
        merged = self._ran(merge_dreams, digests=[made], shards=[self._stage(dsl.Dataset, "shard")], dreams=dsl.Dataset)
        read = {"teacher": dsl.Model, "dreams": dsl.Dataset, "student": dsl.Model}
        pruned = self._ran(prune, digests=merged, **read, section=PRUNING, recovery={}, checkpoints="")
        section = {"exclude": ["layer*", "conv1*"]}
        taken = {"digests": merged, "teacher": dsl.Model, "dreams": dsl.Dataset}
        self._ran(scan_sensitivity, **taken, section=section, sensitivity=dsl.Artifact, page=dsl.HTML)
        read |= {"repaired": dsl.Model, "recovered": dsl.Model}
        recovered = self._ran(recover, digests=pruned, **read, section={**RECOVERY, "epochs": 1.0}, checkpoints="")
        read |= {"statistics": dsl.Artifact, "test_set": dsl.Dataset, "evaluation": dsl.Artifact, "report": dsl.HTML}
        pages = {"confusion": dsl.ClassificationMetrics, "summary": dsl.Markdown}
        evaluated = self._ran(
            evaluate, digests=recovered, test_set_digests=tested, fetched_from="", **read, **pages, section={}
        )
        self._ran(gate, digests=evaluated, evaluation=dsl.Artifact, verdict=dsl.Markdown, section={})
        section = {"to": f"s3://resprout/tests/{folder.name}", "name": "tiny"}
        taken = {"recovered": dsl.Model, "evaluation": dsl.Artifact, "report": dsl.HTML, "publication": dsl.Artifact}
        self._call(publish, {"digests": evaluated, **taken, "section": section})

    def _call(self, component: Any, given: dict[str, Any]) -> Callable[[], Any]:
        usual = {"identity": "", "seed": 0, "gpus": "0"}
        wanted = {**component.component_spec.inputs, **component.component_spec.outputs}
        given |= {name: value for name, value in usual.items() if name in wanted}
        given |= {name: self._stage(kind, name) for name, kind in given.items() if isinstance(kind, type)}
        given |= {"metrics": self._stage.metrics()} if "metrics" in wanted else {}
        return self.calls.setdefault(component.name, partial(component.python_func, **given))

    def _ran(self, component: Any, **given: Any) -> dict[str, str]:
        made = self._call(component, given)()
        return made.digests if made else {}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, _trained: Teacher, _structured_images: tuple[Tensor, Tensor]):
    folder = tmp_path_factory.mktemp("chain")
    artifacts.save_teacher(copy.deepcopy(_trained), folder / "source")
    save_images(folder / "data.safetensors", _structured_images, _trained)
    return Chain(folder, folder / "data.safetensors")


built: list[int] = []


def spy(num_classes: int) -> nn.Module:
    built.append(num_classes)
    return nn.Linear(1, num_classes)


def rewrite(folder: Path) -> None:
    """Another manifest, with a valid seal: of a network, one that has later stages run code."""
    ours = {"architecture": f"{__name__}:spy", "arguments": {}, "custom_code": True}
    resealed(folder, lambda fields: fields["about"].get("model", {}).update(ours) or fields.update(seed=99))


def replace_file(folder: Path, name: str) -> None:
    """A file of other bytes, with a manifest of another artifact that is whole."""
    flip(folder / name)
    resealed(folder, lambda fields: fields["files"].update({name: artifacts.sha256_of(folder / name)}))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


@pytest.mark.usefixtures("storage_configured")
@pytest.mark.parametrize(
    ("component", "name"), [(component, name) for component, names in GIVEN.items() for name in names]
)
def test_what_was_changed_between_two_stages_is_refused(chain: Chain, component: str, name: str) -> None:
    path = chain.folder / ("shard" if name == "shards" else name)
    kept = {file: file.read_bytes() for file in ([path] if path.is_file() else sorted(path.iterdir()))}
    changes: dict[str, Callable[[], None]] = {"a byte of the page": partial(flip, path)}
    if path.is_dir():
        files = [] if component in READ_THE_MANIFEST_ALONE else list(artifacts.read_manifest(path).files)
        changes = {"the manifest": partial(rewrite, path)}
        changes |= {f"a byte of {file}": partial(flip, path / file) for file in files}
        changes |= {f"{file} and the manifest": partial(replace_file, path, file) for file in files}
    for what, change in changes.items():
        change()
        with pytest.raises(ArtifactError) as refused:
            chain.calls[component]()
        assert str(path) in str(refused.value), what
        for file, content in kept.items():
            file.write_bytes(content)
    assert not built, "code of an artifact ran"
