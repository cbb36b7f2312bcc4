"""What lies in a folder of class folders, and what of it is no image."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from resprout.datasets.classes import known_among
from resprout.datasets.pictures import FORMATS
from resprout.errors import DatasetError
from resprout.types import ModelInfo

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_SPLIT = re.compile(
    r"(?<![a-z])(train(ing|set)?|val(id|idation|set)?|dev|test(ing|set)?|eval(uation)?|holdout|unlabell?ed|fold|split)"
    r"(?![a-z])"
)
# what operating systems and file servers leave behind, besides files that begin with a dot
_LITTER = frozenset(
    {
        "__macosx",
        "@eadir",
        "lost+found",
        "$recycle.bin",
        "system volume information",
        "__pycache__",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)
_DEPTH = 3
"""How far below a folder its class folders are looked for."""
_KINDS_SHOWN = 5


def class_folders(folder: Path, info: ModelInfo) -> list[str]:
    """The names of a folder's class folders, sorted as text.

    Raises:
        DatasetError: there are none, or these hold the class folders instead of being them; or one is a link to
            nothing.
    """
    for entry in folder.iterdir():
        if entry.is_symlink() and not entry.exists() and not _is_image(entry.name):
            raise DatasetError(
                f"{entry} is a link to {os.readlink(entry)}, where nothing is",
                why="a class may be missing",
                now="mend the link, or remove it",
            )
    names = _subfolders(folder)
    if not names:
        raise _no_classes(folder)
    if not _fit(names, info) or _is_a_table(folder, names, info):
        roots = [root for name in names for root in _roots(folder / name, info, _DEPTH)]
        if roots:
            raise _too_high(folder, names, roots, info)
        if not info.named and _are_splits(names):
            raise _splits_alone(folder, names)
    return names


def images_in(folder: Path, passed_over: Counter[str]) -> list[Path]:
    """The images of a class folder, at any depth, also through links; sorted.

    Args:
        folder: of one class.
        passed_over: what is no image is counted here, by its suffix.

    Raises:
        DatasetError: there is none, or a folder may not be read.
    """
    found, other = [], Counter[str]()
    for path in _files(folder):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            found.append(path)
        else:
            other["broken link(s)" if not path.exists() else path.suffix.lower() or "without suffix"] += 1
    if not found:
        raise DatasetError(
            f"class folder {folder} holds no image" + (f", but {_counted(other)}" if other else ""),
            why="a class without images is most often a copy that went wrong",
            now=f"put images there ({', '.join(sorted(SUFFIXES))}), or remove the folder",
        )
    passed_over.update(other)
    return sorted(found)


def loose_images(folder: Path) -> int:
    """How many images lie beside the class folders."""
    return sum(entry.is_file() and _is_image(entry.name) for entry in os.scandir(folder))


def notes_on(passed_over: Counter[str], loose: int) -> tuple[str, ...]:
    """What was not taken, for people."""
    files = passed_over.total()
    return tuple(
        note
        for count, note in (
            (files, f"passed over {files:,} file{'s' * (files > 1)}: {_counted(passed_over)}"),
            (loose, f"passed over {loose:,} image{'s' * (loose > 1)} beside the class folders"),
        )
        if count
    )


def unreadable(path: str) -> DatasetError:
    """The error where a file or folder may not be read."""
    return DatasetError(
        f"{path} may not be read by user {os.getuid()}",
        why="in a container, a stage is never root",
        now=f"chmod -R a+rX {path}",
    )


def _counted(files: Counter[str]) -> str:
    shown = sorted(files.items(), key=lambda kind: (-kind[1], kind[0]))[:_KINDS_SHOWN]
    rest = files.total() - sum(count for _, count in shown)
    return ", ".join([*(f"{count:,} {kind}" for kind, count in shown), *([f"{rest:,} others"] if rest else [])])


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LITTER


def _is_image(name: str) -> bool:
    return not _is_litter(name) and Path(name).suffix.lower() in SUFFIXES


def _refuse(error: OSError) -> None:
    raise unreadable(error.filename) from None


def _files(folder: Path) -> Iterator[Path]:
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        about = os.stat(root)
        if (about.st_dev, about.st_ino) in seen:  # a link back up
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not _is_litter(name))
        yield from (Path(root, name) for name in files if not _is_litter(name))


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_litter(entry.name))


def _are_splits(names: list[str]) -> bool:
    return sum(_SPLIT.search(name.casefold()) is not None for name in names) > 1


def _fit(names: list[str], info: ModelInfo) -> bool:
    """Whether these can be the class folders, some of them perhaps misspelt."""
    if info.named:
        return 2 * known_among(names, info) > len(names)
    return len(names) == info.num_classes and not _are_splits(names)


def _is_a_table(folder: Path, names: list[str], info: ModelInfo) -> bool:
    """Whether each folder holds the same folders, as many as there are classes, and no name says which are classes."""
    if info.named:
        return False
    below = [_subfolders(folder / name) for name in names]
    same = all(inner == below[0] for inner in below) and _fit(below[0], info)
    return same and not any(loose_images(folder / name) for name in names)


def _roots(folder: Path, info: ModelInfo, depth: int) -> list[Path]:
    """The folders here or below whose subfolders can be the class folders."""
    names = _subfolders(folder) if os.access(folder, os.R_OK | os.X_OK) else []
    if names and _fit(names, info):
        return [folder]
    return [root for name in names for root in _roots(folder / name, info, depth - 1)] if depth > 1 else []


def _no_classes(folder: Path) -> DatasetError:
    images, packed = loose_images(folder), sorted(folder.glob("*.safetensors"))
    if packed:
        return DatasetError(f"{folder} holds no class folders, but a packed file", now=f"give {packed[0]}")
    return DatasetError(
        f"{folder} holds no class folders" + (f", but {images:,} image(s)" if images else ""),
        now="give a folder with one folder of images per class, by name",
    )


def _too_high(folder: Path, names: list[str], roots: list[Path], info: ModelInfo) -> DatasetError:
    roots = sorted(roots, key=lambda root: "train" in root.name.casefold())
    return DatasetError(
        f"{folder} holds {_listed(names)}, and the class folders lie below",
        why="the folders of the set itself are taken for its classes",
        now=f"give {'one of ' if len(roots) > 1 else ''}{_listed(list(map(str, roots)))}"
        + ("" if info.named else f"; if {_listed(names)} are the classes, name them in teacher.class_names"),
    )


def _splits_alone(folder: Path, names: list[str]) -> DatasetError:
    return DatasetError(
        f"{folder} holds {_listed(names)}, which are parts of a set and not classes",
        why="the folders of the set itself are taken for its classes",
        now="give a folder with one folder of images per class; if these are classes, name them in teacher.class_names",
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_KINDS_SHOWN]) + (", …" if len(names) > _KINDS_SHOWN else "")
