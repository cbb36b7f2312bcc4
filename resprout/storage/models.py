"""A run's result as a published version: the model, its metrics and its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resprout.errors import ArtifactError, StorageError
from resprout.files import sha256_of
from resprout.lineage import recipe_of
from resprout.manifest import MANIFEST, Manifest, check, record_of
from resprout.progress import Progress, Report, silent
from resprout.recipe import PublishingSection
from resprout.statement import Builder, build
from resprout.storage.attesting import attest
from resprout.storage.client import ObjectAddress, Storage
from resprout.storage.publishing import Publication, find, is_published, publish

DIGITS_OF_A_VERSION = 12


def publish_model(
    storage: Storage,
    section: PublishingSection,
    *,
    model: str | Path,
    evaluation: str | Path,
    page: str | Path,
    digests: Mapping[str, str],
    builder: Builder,
    key: Path | None = None,
    report: Report = silent,
) -> Publication:
    """Publish a recovered model under the section's name and version, with a statement of what it was made.

    Args:
        section: names where to; without a version, the model's digest is its version. Where that is published already,
            it is this very model, which may have been judged in another way since: what is there stays, report and all.
        model, evaluation: artifacts, as folders.
        page: the report, one HTML file.
        digests: those of `recovered`, `evaluation` and `report`, as the stages that made them said.
        builder: who the statement says has made it.
        key: the file of a private key to sign all of it with; None: it is not signed.
        report: told how many bytes have been stored.

    Raises:
        ArtifactError: one of the three is not what its stage made, or the evaluation is of another model.
        StorageError: that version exists with other files, or storage refuses.
    """
    if section.to is None or section.name is None:
        raise ValueError("the section does not say where to publish, or as what")
    checked = _checked(Path(model), Path(evaluation), Path(page), digests)
    digest, prefix = digests["recovered"], ObjectAddress.parse(section.to)
    version = section.version or digest[:DIGITS_OF_A_VERSION]
    if section.version is None and is_published(storage, prefix, section.name, version):
        return _this_model(find(storage, prefix, section.name, version), digest)
    metrics = Path(evaluation) / "metrics.json"
    # what else lies in the folder was checked by nobody
    files = {f"model/{name}": Path(model) / name for name in sorted([MANIFEST, *checked.files])}
    files |= {"metrics.json": metrics, "report.html": Path(page)}
    # which names the model and the figures by their digests, and all that came before
    files |= {f"evaluation/{MANIFEST}": Path(evaluation) / MANIFEST}
    stated = build({name: sha256_of(path) for name, path in files.items()}, *_asked(Path(evaluation), digests), builder)
    total, sent = sum(path.stat().st_size for path in files.values()), dict.fromkeys(files, 0)

    def watch(name: str, done: int, _: int) -> None:
        sent[name] = done
        report(Progress("publishing", sum(sent.values()), total, "bytes"))

    return publish(
        storage,
        prefix,
        section.name,
        version,
        files,
        about={"digest": digest, "metrics": json.loads(metrics.read_text())},
        watch=watch,
        seal=lambda folder: attest(storage, folder, files, stated, key),
    )


def _asked(evaluation: Path, digests: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An evaluation's record and the recipe behind it, which says where the teacher was fetched, not what it claims."""
    record = record_of("evaluation", evaluation, sha256=digests["evaluation"])
    recipe, summary = recipe_of(record), evaluation / "summary.json"
    fetched_from = json.loads(summary.read_text()).get("teacher_fetched_from") if summary.exists() else None
    if fetched_from and "teacher" in recipe:
        recipe["teacher"]["source"] = fetched_from
    return record, recipe


def _this_model(found: Publication, digest: str) -> Publication:
    if found.model_digest != digest:
        raise StorageError(
            f"{found.address} is published, and is another model",
            why=f"its digest is {found.model_digest or 'none'}, and this one's is {digest}",
            now="give publishing.version, and find out who published that",
        )
    return found


def _checked(model: Path, evaluation: Path, page: Path, digests: Mapping[str, str]) -> Manifest:
    """The model's manifest, once every byte is what its stage made, and the figures are known to be this model's."""
    made = check(model, sha256=digests["recovered"])
    judged = check(evaluation, "evaluation", sha256=digests["evaluation"])
    if {record["name"]: record["sha256"] for record in judged.inputs}.get("recovered") != digests["recovered"]:
        raise ArtifactError(
            f"the evaluation in {evaluation} is of another model than the one in {model}",
            why="its figures would be published as this model's",
            now="evaluate this model",
        )
    if sha256_of(page) != digests["report"]:
        raise ArtifactError(
            f"{page} is not the report that the evaluation wrote",
            why="it was changed in between, or another was put in its place",
            now="run it again",
        )
    return made
