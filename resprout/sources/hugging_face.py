"""Repositories of the Hugging Face Hub, and folders laid out like one: config.json beside the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from resprout import strict_json
from resprout.errors import ArtifactError, RecipeError, UnsupportedModelError
from resprout.files import opened
from resprout.hub import hub_file
from resprout.models import hugging_face
from resprout.recipe import TeacherSection
from resprout.sources.files import Candidate, read_weights
from resprout.sources.hubs import check_cached, named, timm_candidate, weights_of
from resprout.types import InputSpec
from resprout.urls import without_secrets

_MAX_CONFIG_BYTES = 1 << 24  # ImageNet's 21,841 classes, named there and back, take a quarter of it

_MAX_SIDE = 2048  # twice what classifiers take; three images of it are tried


def from_hub(section: TeacherSection) -> Candidate:
    """`hf://OWNER/REPO` or `hf://OWNER/REPO@REVISION`: a repository of timm's or of transformers'."""
    source = without_secrets(section.source)
    repository, _, revision = section.source.removeprefix("hf://").partition("@")
    if repository.count("/") != 1 or "?" in section.source:
        raise RecipeError(f"teacher.source: '{source}' is not hf://OWNER/REPO or hf://OWNER/REPO@REVISION")
    return _candidate(partial(hub_file, repository, revision=revision or None), source, section)


def from_folder(path: Path, section: TeacherSection) -> Candidate:
    """A folder on this machine, as transformers' `save_pretrained` and timm's `save_for_hf` write it."""
    return _candidate(partial(_file, path), path.resolve().name, section)


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise ArtifactError(f"there is no {name} in {folder}", now="correct teacher.source")
    return folder / name


def _candidate(file: Callable[[str], Path], source: str, section: TeacherSection) -> Candidate:
    config = _config(file("config.json"), source)
    classes = config.get("architectures")
    theirs = str(classes[0]) if isinstance(classes, list) and classes else ""
    if config.get("architecture") or not theirs:
        content, digest = _weights(file, source, section)
        pretrained = {**config, **_part(config, "pretrained_cfg", source)}
        arguments = _part(config, "model_args", source)
        return timm_candidate(config.get("architecture"), pretrained, arguments, content, source, digest)
    if section.architecture is None:  # else the recipe knows better how to build it
        _check_classifier(theirs, source)
    content, digest = _weights(file, source, section)
    spec, problem = (None, "") if section.input else _stated_input(file, config)
    return Candidate(
        content,
        source,
        digest,
        architecture=hugging_face.PREFIX + theirs,
        arguments=hugging_face.arguments_of(config),
        input=spec,
        input_problem=problem,
        class_names=_class_names(config),
    )


def _weights(file: Callable[[str], Path], source: str, section: TeacherSection) -> tuple[Any, str]:
    path = weights_of(file)
    content, digest = read_weights(path, source, sha256=section.sha256)
    check_cached(path, digest)
    return content, digest


def _config(path: Path, source: str) -> dict[str, Any]:
    try:
        with opened(path) as read:
            content = read.read(_MAX_CONFIG_BYTES + 1)
        if len(content) > _MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {_MAX_CONFIG_BYTES:,} bytes")
        config = strict_json.parse(content)
    except ValueError as error:
        raise UnsupportedModelError(
            f"{path.name} of {source} cannot be read: {error}",
            why="it says how the network is built",
            now="fetch it again, or give the weights file alone with teacher.architecture",
        ) from None
    if not isinstance(config, dict):
        raise UnsupportedModelError(f"{path.name} of {source} is not a mapping")
    return config


def _part(config: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    part = config.get(name) or {}
    if not isinstance(part, dict):
        raise UnsupportedModelError(f"config.json of {source} says {name}: {part!r}, which is not a mapping")
    return part


def _check_classifier(name: str, source: str) -> None:
    if "ForImageClassification" not in name:
        raise UnsupportedModelError(
            f"{source} holds a {name} of transformers, no image classifier",
            why="Resprout compresses image classifiers",
            now="take a repository that its page calls Image Classification",
        )
    hugging_face.require(f"{source}, a {name},")


def _stated_input(file: Callable[[str], Path], config: Mapping[str, Any]) -> tuple[InputSpec | None, str]:
    try:
        folder = file("preprocessor_config.json").parent
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (folder / name).exists():
                _check_sizes(_config(folder / name, "its repository"), name)
        return hugging_face.input_of(folder, config.get("num_channels", 3)), ""
    except (ArtifactError, UnsupportedModelError) as error:
        return None, error.what


def _check_sizes(value: Any, name: str) -> None:
    """Refuse sizes that images would be scaled to in more memory than there is."""
    if isinstance(value, int | float) and value > _MAX_SIDE:
        raise UnsupportedModelError(f"its {name} says {value}, where no image has more than {_MAX_SIDE} pixels a side")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_sizes(part, name)


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = config.get("id2label")
    if not isinstance(names, dict) or set(names) != set(map(str, range(len(names)))):
        return None
    return named([names[str(label)] for label in range(len(names))])
