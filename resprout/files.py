"""Files that a reader finds whole or not at all, and their digests. Without torch, for stages that only move bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from safetensors import SafetensorError

from resprout.errors import ArtifactError


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes. A pipe or a device in its place would be waited for, or read, without end.

    Raises:
        ArtifactError: it is no plain file.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        _check_plain(file.fileno(), path)
        yield file


def read_at_most(path: Path, at_most: int) -> bytes:
    """All of a file's bytes.

    Raises:
        OSError: it is not there, or cannot be read.
        ArtifactError: it is no plain file.
        ValueError: it is larger.
    """
    with opened(path) as file:
        read = file.read(at_most + 1)
    if len(read) > at_most:
        raise ValueError(f"it is larger than {at_most >> 20} MiB")
    return read


@contextmanager
def appended_to(path: Path) -> Iterator[TextIO]:
    """A text file to write at the end of, made where there is none. Somebody's link in its place is not followed.

    Raises:
        ArtifactError: it is a link, or no plain file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads
            raise
        raise _not_plain(path) from None
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        _check_plain(descriptor, path)
        yield file


def refuse_links_of_others(directory: Path) -> None:
    """Refuse a folder in which somebody else has put a link: what is written there may lead anywhere.

    Raises:
        ArtifactError: with the link.
    """
    for path in directory.iterdir():
        if path.is_symlink() and path.lstat().st_uid != os.geteuid():
            raise ArtifactError(
                f"{path} is a link that another user made",
                why="what is written there would go where it leads",
                now="give a folder of your own",
            )


def _check_plain(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise _not_plain(path)


def _not_plain(path: Path) -> ArtifactError:
    return ArtifactError(
        f"{path} is no plain file",
        why="a pipe or a device may never end, and a link leads to a file that may be anybody's",
        now=f"see who put it there, and remove it: ls -l {path}",
    )


def sha256_of(path: Path, copy: BinaryIO | None = None) -> str:
    """The hexadecimal sha256 of a file's bytes, which are written to `copy` on the way.

    Raises:
        ArtifactError: it is no plain file.
    """
    digest = hashlib.sha256()
    with opened(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if copy is not None:
                copy.write(block)
    return digest.hexdigest()


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary file path beside `path`; rename it over `path` when the block ends well.

    Raises:
        ArtifactError: there is no room for it, or it cannot be written there.
    """
    if path.is_dir():
        raise ArtifactError(f"{path} is a folder", why="a file is to be written", now="name a file")
    temporary = hidden_beside(path)
    with room_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with room_for(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # where nothing can be written, there is nothing to remove
            temporary.unlink()


def hidden_beside(path: Path) -> Path:
    """A name in the same folder that nobody can have guessed, and put a link of theirs at."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Say so where a disk, a quota or a limit is full, or nothing can be written at a place.

    safetensors hides the system's error number in its text.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = re.search(r"os error (\d+)", str(error))
        code = error.errno if isinstance(error, OSError) else int(number[1]) if number else None
        if code in _CLOSED:
            raise ArtifactError(
                f"{path} cannot be written",
                why=_in_words(error, code),
                now="name a place where you may write, or make this one so",
            ) from error
        if code not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ArtifactError(
            f"there is no room for {path}",
            why=f"{os.strerror(code)}; {shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB are free there",
            now="make room, then run the same again: what was finished is kept",
        ) from error


def _in_words(error: Exception, code: int) -> str:
    where = getattr(error, "filename", None)
    return os.strerror(code) + (f": {where}" if where else "")


def check_writable(directory: Path) -> None:
    """Refuse a folder in which nothing could be written, before the work that makes what is to be written there.

    Raises:
        ArtifactError: it cannot be made, or it is on a read-only file system, or not yours to write in.
    """
    with room_for(directory):
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
