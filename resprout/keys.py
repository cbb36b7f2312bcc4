"""Random keys of a user's own, each in a file. Without torch, for who only names the file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection
from pathlib import Path

from resprout.errors import ArtifactError
from resprout.files import opened, write_atomically

KEY_BYTES = 32
KEY_FILE = ".key"
"""Its name in a folder of checkpoints."""


def own_key(path: Path, *, others: Collection[int] = ()) -> bytes:
    """A random key of this user's own, kept in a file, which is made where there is none.

    A file that others can have written or read is replaced: what was sealed with its key counts as none.

    Args:
        path: the file; where file systems know no owners, a key does not outlive its process.
        others: user ids whose files are as good as this user's.

    Raises:
        ArtifactError: no file can be written there.
    """
    if found := _kept_key(path, {os.geteuid(), *others}):
        return found
    key = secrets.token_bytes(KEY_BYTES)
    with write_atomically(path) as temporary, open(temporary, "wb", opener=_for_the_owner) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(key)
    return key


def _for_the_owner(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _kept_key(path: Path, owners: Collection[int]) -> bytes | None:
    try:
        with opened(path) as file:
            about, key = os.fstat(file.fileno()), file.read(KEY_BYTES + 1)
    except (OSError, ArtifactError):
        return None
    alone = about.st_uid in owners and not about.st_mode & 0o077
    return key if alone and len(key) == KEY_BYTES else None
