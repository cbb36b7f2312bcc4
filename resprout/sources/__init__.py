"""Teachers: fetched from files, hubs, object storage or https, and judged before anything is built on them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from resprout import models
from resprout.artifacts import MANIFEST, digest_of, load_teacher, read_manifest
from resprout.errors import ArtifactError, RecipeError, UnsupportedModelError
from resprout.models.bounds import no_larger_than
from resprout.progress import Report, silent
from resprout.recipe import TeacherSection
from resprout.rehearsal import rehearse
from resprout.sources import checks, hugging_face
from resprout.sources.contents import entries_of
from resprout.sources.download import downloaded
from resprout.sources.files import Candidate, read_weights
from resprout.sources.fitting import check_numbers, fitted, matched
from resprout.sources.hubs import from_timm, from_torchvision
from resprout.sources.norms import notes_on_norms
from resprout.types import InputSpec, ModelInfo, Stored, Teacher
from resprout.urls import without_secrets

CLAIMED = "claimed by the folder: "
_WEIGHTS = "weights.safetensors"
_OF_WEIGHTS_ALONE = (
    "teacher.sha256 names the weights alone: architecture, input and class names are what the folder says. "
    "Its digest, {}, names them too."
)
_PROBE = 7919  # a number of classes that no layer has by chance

_HUBS = {"torchvision": from_torchvision, "timm": from_timm}


def fetch(
    section: TeacherSection, *, base: str | Path = ".", report: Report = silent, stored: Stored | None = None
) -> Teacher:
    """Fetch the teacher that a recipe names, and judge it.

    What the recipe says goes before what the source says.

    Args:
        section: the recipe's teacher section.
        base: the folder that a relative path starts from.
        report: told how many bytes have been downloaded.
        stored: how to read object storage, of which the core knows nothing; `resprout.storage.stored`.

    Returns:
        The teacher: in evaluation mode, its weights frozen, its source free of secrets and of this machine's
        paths, and the sha256 of the weights file that was read. What a folder says of its source begins with `CLAIMED`.

    Raises:
        RecipeError: the section does not say enough (input, architecture, sha256), or names no such source.
        ArtifactError: there is no such file, it cannot be fetched, or its digest differs.
        UnsupportedModelError: a pickle with code, custom code that was not allowed, weights that do not fit, NaN,
            or no BatchNorm statistics to synthesize from.
    """
    return rehearse(_judged(_open(section, Path(base), report, stored), section), report=report)


def fetched_from(section: TeacherSection) -> str:
    """Where a teacher is fetched from, without secrets, and of this machine's paths the last name alone."""
    return without_secrets(section.source) if "://" in section.source else Path(section.source).resolve().name


def _open(section: TeacherSection, base: Path, report: Report, stored: Stored | None) -> Candidate:
    scheme, separator, _ = section.source.partition("://")
    if not separator:
        return _from_path(base / Path(section.source).expanduser(), section)
    if scheme in _HUBS:
        return _HUBS[scheme](section.source, section.sha256)
    if scheme == "hf":
        return hugging_face.from_hub(section)
    if scheme == "https":
        return _from_https(section, report)
    if scheme == "s3" and stored is not None:
        with tempfile.TemporaryDirectory(prefix="resprout-") as folder:
            fetched = stored(section.source, Path(folder), report)
            candidate = _from_path(fetched, section)
            # a folder of ours says itself where its weights come from, wherever it has been since
            ours = (fetched / MANIFEST).exists()
            return candidate if ours else replace(candidate, source=without_secrets(section.source))
    raise RecipeError(
        f"teacher.source: {scheme}:// is not a source" + (" (plain http is not safe)" if scheme == "http" else ""),
        now="give a path, torchvision://NAME?weights=W, timm://NAME, hf://OWNER/REPO, s3://BUCKET/KEY or https://…",
    )


def _from_path(path: Path, section: TeacherSection) -> Candidate:
    if not path.exists():
        raise ArtifactError(f"there is no teacher {path}", now="correct teacher.source")
    if (path / "config.json").is_file() and not (path / MANIFEST).exists():
        return hugging_face.from_folder(path, section)
    if path.is_dir():
        return _from_folder(path, section)
    content, digest = read_weights(path, path.name, sha256=section.sha256)
    return Candidate(content, path.name, digest)


def _from_folder(path: Path, section: TeacherSection) -> Candidate:
    folder = digest_of(path)
    weights = read_manifest(path, "teacher", sha256=folder).files.get(_WEIGHTS, "")
    if section.sha256 not in (None, folder, weights):
        raise ArtifactError(
            f"neither teacher {path} nor its weights have the sha256 that the recipe says: {section.sha256}",
            why="this is not the teacher that was agreed on",
            now="correct teacher.source, or teacher.sha256 once you know that this folder is right: "
            "`resprout models show` gives its digest",
        )
    teacher = load_teacher(path, sha256=folder, allow_custom_code=section.allow_custom_code)
    notes = (_OF_WEIGHTS_ALONE.format(folder),) if section.sha256 == weights else ()
    info = teacher.info
    # whoever wrote the folder may have named any source
    claim = f"{CLAIMED}{teacher.source.removeprefix(CLAIMED)}"
    source = claim if teacher.source else path.resolve().name
    state = teacher.network.state_dict()
    names = info.class_names if info.named else None
    return Candidate(state, source, weights, info.architecture, info.arguments, info.input, names, notes=notes)


def _from_https(section: TeacherSection, report: Report) -> Candidate:
    source = without_secrets(section.source)
    if section.sha256 is None:
        raise RecipeError(
            f"teacher.sha256: is required for {source}",
            why="without it, whoever answers for that address chooses your teacher",
            now="ask its owner for the sha256 of the file, and put it into the recipe",
        )
    with downloaded(section.source, report=report) as path:
        content, digest = read_weights(path, source, sha256=section.sha256)
    return Candidate(content, source, digest)


def _judged(candidate: Candidate, section: TeacherSection) -> Teacher:
    with no_larger_than(entry.tensor for entry in entries_of(candidate.content).values()):
        info = _info(candidate, section)
        written = models.as_written(
            info.architecture, info.num_classes, info.arguments, info.input.shape, section.allow_custom_code
        )
    network, notes = fitted(written, candidate.content, candidate.source, info.architecture)
    network = network.eval().requires_grad_(False)
    return Teacher(
        info, network, candidate.source, candidate.digest, (*candidate.notes, *notes, *notes_on_norms(network))
    )


def _info(candidate: Candidate, section: TeacherSection) -> ModelInfo:
    architecture = section.architecture or candidate.architecture
    if architecture is None:
        raise RecipeError(
            f"teacher.architecture: is required for {candidate.source}",
            why="a weights file does not say how its network is built",
            now="give a name from `resprout models architectures`, any timm name, or your own package.module:function",
        )
    spec = InputSpec(**section.input.model_dump()) if section.input else candidate.input
    if spec is None:
        raise RecipeError(
            f"teacher.input: is required for {candidate.source}",
            why=candidate.input_problem or "weights do not say what images they take",
            now="give teacher.input.shape, mean and std, for example shape: [3, 32, 32]",
        )
    # those of the source belong to the architecture of the source
    arguments = section.arguments or (candidate.arguments if architecture == candidate.architecture else {})
    allow = section.allow_custom_code
    num_classes = section.num_classes or _num_classes(architecture, arguments, spec, candidate, allow)
    checks.check_num_classes(num_classes, candidate.content, candidate.source)
    given = section.class_names or candidate.class_names
    numbers = tuple(map(str, range(num_classes)))
    return ModelInfo(
        architecture,
        num_classes,
        spec,
        given or numbers,
        arguments,
        custom_code=models.is_custom(architecture),
        numbers_are_names=given == numbers,
    )


def _num_classes(
    architecture: str, arguments: Mapping[str, object], spec: InputSpec, candidate: Candidate, allow_custom_code: bool
) -> int:
    """The length of the logits, read off the layer whose size follows the number of classes, or off an answer."""
    try:
        probe = models.as_written(architecture, _PROBE, arguments, spec.shape, allow_custom_code)
    except UnsupportedModelError as error:
        if f"={_PROBE}" in error.now:
            error.why += f"; it was called with {_PROBE} classes to see which layer follows their number"
            error.now = f"give teacher.num_classes; or {error.now}"
        raise
    probe, match, _ = matched(probe, candidate.content, candidate.source, any_size=_PROBE)
    heads = {name: own.shape.index(_PROBE) for name, own in probe.state_dict().items() if _PROBE in own.shape}
    check_numbers(match, probe, candidate.source)
    state = match.state
    sizes = {state[name].shape[axis] for name, axis in heads.items() if name in state}
    if not heads:
        sizes = checks.length_of_logits(probe, spec)
    if len(sizes) != 1:
        raise UnsupportedModelError(
            f"the weights of '{candidate.source}' do not show how many classes {architecture} tells apart",
            why=f"they lack {', '.join(heads)}" if heads else "no layer of it follows the number of classes",
            now="correct teacher.architecture, or give teacher.num_classes",
        )
    return int(sizes.pop())
