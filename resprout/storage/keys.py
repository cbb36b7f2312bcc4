"""What checkpoints are sealed with; from the environment or secret files, as `resprout.storage.settings`."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from resprout.errors import StorageError
from resprout.keys import own_key
from resprout.storage.settings import StorageSettings

CHECKPOINT_KEY_FILE, FEWEST_KEY_CHARACTERS = "RESPROUT_CHECKPOINT_KEY_FILE", 16


def checkpoint_key_file() -> Path | None:
    """The file with the key of a local run's own, which `resprout run` names to its stages."""
    named = os.environ.get(CHECKPOINT_KEY_FILE)
    return Path(named) if named else None


def checkpoint_key(settings: StorageSettings) -> bytes:
    """What checkpoints in object storage are sealed with.

    The key of a local run's own; else the file `checkpointkey` of `settings.secrets`, which a server never sees; else a
    key that follows from the secret key, and that therefore everybody has who has that.

    Raises:
        StorageError: such a file holds too little, or there are no credentials.
    """
    if named := checkpoint_key_file():
        return own_key(named)
    given = settings.secrets / "checkpointkey" if settings.secrets else None
    if given is None or not given.is_file():
        return hmac.digest(settings.credentials()[1].encode(), b"resprout checkpoints", "sha256")
    content = given.read_bytes().strip()
    if len(content) < FEWEST_KEY_CHARACTERS:
        raise StorageError(
            f"{given} holds {len(content)} characters",
            why="whoever guesses them can put other work in place of a stage's own",
            now=f"put at least {FEWEST_KEY_CHARACTERS} there, such as `openssl rand -hex 32` prints",
        )
    return hashlib.sha256(content).digest()
