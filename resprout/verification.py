"""Whether a run's folder, or a published version's, still holds what it was left with, and what follows from that.

Each file is held against the statement, each artifact's manifest against its files, each link from the evaluation back
to the teacher against the artifact that lies there. Without torch: nothing is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resprout.errors import ArtifactError
from resprout.files import sha256_of
from resprout.manifest import MANIFEST, read_manifest, record_of
from resprout.signing import SIGNATURES
from resprout.statement import STATEMENT, Statement, read, resources

# a folder of a run's -> the kind of artifact that it holds
ARTIFACTS = {
    "teacher": "teacher",
    "statistics": "statistics",
    "dreams": "dreams",
    "student": "student",
    "repaired": "repaired",
    "model": "recovered",
}
MEASURED = ("evaluation/", "model/", "metrics.json", "recipe.yaml")
"""What a judgement rests on."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: its name.
        said: what was found, for people.
        holds: whether it is as it should be; None: it was not there to be checked.
    """

    what: str
    said: str
    holds: bool | None = True


@dataclass(frozen=True)
class Verified:
    """What was looked at in a folder.

    Args:
        statement: of the folder.
        model: the model's digest.
        findings: in the order in which they rest on each other.
    """

    statement: Statement
    model: str
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is otherwise than it should be."""
        return all(finding.holds is not False for finding in self.findings)


def verify(folder: Path, *, sha256: str | None = None) -> Verified:
    """Look at all that a folder holds.

    Args:
        folder: a run's, or a version as it was fetched.
        sha256: the model's digest, as somebody kept it.

    Raises:
        ArtifactError: there is no statement, or it was changed: nothing can be held against it.
    """
    stated = read(folder / STATEMENT)
    model = stated.files.get(f"model/{MANIFEST}", "")
    return Verified(stated, model, tuple(_findings(folder, stated, model, sha256)))


def require_measured(folder: Path) -> None:
    """Refuse a run's folder whose figures, model or recipe are not those that the run left there together.

    Raises:
        ArtifactError: they are not.
    """
    stated = read(folder / STATEMENT)
    files = {name: digest for name, digest in stated.files.items() if name.startswith(MEASURED)}
    if problems := [*_changed(folder, files), *_broken(folder, stated)]:
        raise ArtifactError(
            f"{folder} does not hold what its run left there: {problems[0]}",
            why="what was measured need not be what lies there",
            now="run the recipe again; `resprout verify` lists all that was changed",
        )


def _findings(folder: Path, stated: Statement, model: str, sha256: str | None) -> Iterator[Finding]:
    where = stated.predicate.run_details
    yield Finding(STATEMENT, f"of {where.metadata.finished_on}, by {where.builder.id}")
    changed = [*_changed(folder, stated.files), *_unlisted(folder, stated)]
    yield Finding("files", _listed(changed) or f"{len(stated.files)}, each as it is listed there", not changed)
    broken = list(_broken(folder, stated))
    outside, made = _of(stated)
    links = (
        f"{', '.join(outside) or 'nothing'} from outside; from that, {len(made)} artifacts, each named by its digest"
    )
    yield Finding("chain", _listed(broken) or links, not broken)
    if resumed := [it.name for it in stated.predicate.run_details.byproducts if "resumed" in it.annotations]:
        yield Finding("checkpoints", f"went into {', '.join(resumed)}", None)
    if sha256 is not None:
        same = bool(model) and model == sha256
        yield Finding("digest", "the model is the one that you name" if same else f"the model's is {model}", same)
    if others := _others(folder, stated):
        yield Finding("not listed", _listed(others), None)


def _of(stated: Statement) -> tuple[list[str], list[str]]:
    built = stated.predicate.build_definition.resolved_dependencies
    outside = [it.name for it in built if it.name != "image"]
    return outside, [it.name for it in stated.predicate.run_details.byproducts]


def _changed(folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    """Each file that is not there, or holds other bytes than are listed."""
    for name, digest in files.items():
        path = folder / name
        if any(part.is_symlink() for part in (path, *path.parents[: name.count("/")])):
            yield f"{name} is a link"
            continue
        try:
            if sha256_of(path) != digest:
                yield f"{name} was changed"
        except (FileNotFoundError, NotADirectoryError):
            yield f"{name} is missing"
        except (OSError, ArtifactError):
            yield f"{name} cannot be read"


def _unlisted(folder: Path, stated: Statement) -> Iterator[str]:
    """Files in an artifact's folder that are none of it: whoever loads the folder might take them for it."""
    for name in stated.files:
        artifact, _, file = name.rpartition("/")
        if file == MANIFEST:
            yield from (
                f"{found} was added" for found in _below(folder, folder / artifact) if found not in stated.files
            )


def _others(folder: Path, stated: Statement) -> list[str]:
    """What lies beside the files that are listed, and nobody vouches for."""
    listed = {name.partition("/")[0] for name in stated.files} | {STATEMENT, SIGNATURES}
    return sorted(path.name for path in folder.iterdir() if path.name not in listed and not path.name.startswith("."))


def _below(folder: Path, inner: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in inner.rglob("*") if not path.is_dir())


def _broken(folder: Path, stated: Statement) -> Iterator[str]:
    """Where the chain from the evaluation back to the teacher does not fit what lies there."""
    try:
        evaluation = record_of("evaluation", folder / "evaluation")
        known = {record["sha256"]: record for record in evaluation["inputs"]}
        yield from _unlike_its_manifest(folder, "evaluation", stated.files)
        for name, kind in ARTIFACTS.items():
            if name != "model" and not (folder / name).exists():
                continue  # a published version holds the model alone
            yield from _unlike_its_manifest(folder, name, stated.files)
            record = record_of(name, folder / name)
            if record["kind"] != kind or known.get(record["sha256"], {}) | {"name": name} != record:
                yield f"{name} is not what was evaluated"
        figures = read_manifest(folder / "evaluation", "evaluation").files.get("metrics.json")
        if figures != stated.files.get("metrics.json"):
            yield "metrics.json is not what the evaluation measured"
        if not _fits(stated, evaluation):
            yield f"{STATEMENT} names other inputs than the artifacts do"
    except ArtifactError as error:
        yield error.what
    except (KeyError, TypeError, AttributeError):
        yield "a manifest's records are none"


def _unlike_its_manifest(folder: Path, artifact: str, listed: Mapping[str, str]) -> Iterator[str]:
    files = {f"{artifact}/{name}": digest for name, digest in read_manifest(folder / artifact).files.items()}
    there = [name for name in files if name in listed]
    if artifact == "evaluation" and not there:
        return  # of a published version's, the manifest alone
    yield from (f"{name} is not what {artifact}/{MANIFEST} lists" for name in files if files[name] != listed.get(name))


def _fits(stated: Statement, evaluation: Mapping[str, Any]) -> bool:
    outside, made = resources(evaluation)
    built = stated.predicate.build_definition.resolved_dependencies
    return [it for it in built if it.name != "image"] == outside and stated.predicate.run_details.byproducts == made


def _listed(problems: list[str], most: int = 5) -> str:
    more = f", and {len(problems) - most} more" if len(problems) > most else ""
    return ", ".join(problems[:most]) + more
