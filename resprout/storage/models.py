"""A run's result as a published version: the model, its metrics and its report."""

from __future__ import annotations

import json
from pathlib import Path

from resprout.manifest import digest_of
from resprout.progress import Progress, Report, silent
from resprout.recipe import PublishingSection
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
    report: Report = silent,
) -> Publication:
    """Publish a recovered model under the section's name and version.

    Args:
        section: names where to; without a version, the model's digest is its version. Where that is published already,
            it is this very model, which may have been judged in another way since: what is there stays, report and all.
        model, evaluation: artifacts, as folders.
        page: the report, one HTML file.
        report: told how many bytes have been stored.

    Raises:
        StorageError: that version exists with other files, or storage refuses.
    """
    if section.to is None or section.name is None:
        raise ValueError("the section does not say where to publish, or as what")
    digest, prefix = digest_of(model), ObjectAddress.parse(section.to)
    version = section.version or digest[:DIGITS_OF_A_VERSION]
    if section.version is None and is_published(storage, prefix, section.name, version):
        return find(storage, prefix, section.name, version)
    metrics = Path(evaluation) / "metrics.json"
    files = {f"model/{path.name}": path for path in sorted(Path(model).iterdir())}
    files |= {"metrics.json": metrics, "report.html": Path(page)}
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
    )
