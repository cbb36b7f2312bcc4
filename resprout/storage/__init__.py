"""Object storage: any S3 server, through the minio SDK. For components and the command line; stages know none of it.

Nothing here needs torch, so that what only looks things up starts at once; `checkpoint` and `models` below it do.
"""

from pathlib import Path

from resprout.progress import Progress, Report
from resprout.storage import folders, identities
from resprout.storage.client import ObjectAddress, ObjectFacts, Storage
from resprout.storage.publishing import (
    Publication,
    check_free,
    fetch,
    find,
    is_as_written,
    is_published,
    publish,
    published,
    save_publication,
)
from resprout.storage.settings import StorageSettings, from_environment, required, variables
from resprout.storage.trial import try_keeping, try_writing


def stored(source: str, folder: Path, report: Report) -> Path:
    """Fetch what lies at an s3:// address into a folder: what `resprout.sources.fetch` takes as its `stored`.

    Returns:
        The file or the folder.

    Raises:
        StorageError: no storage is configured, it cannot be reached, there is no such thing, or only a part of it.
    """
    return folders.fetch(
        Storage(required()),
        ObjectAddress.parse(source),
        folder,
        lambda done, total: report(Progress("teacher", done, total, "bytes")),
    )


def identity(address: str) -> str:
    """What stands for the bytes at an s3:// address right now, without reading them: see `identities.identity`.

    Raises:
        StorageError: no storage is configured, it cannot be asked, or there is nothing.
    """
    return identities.identity(Storage(required()), ObjectAddress.parse(address))


__all__ = [
    "ObjectAddress",
    "ObjectFacts",
    "Publication",
    "Storage",
    "StorageSettings",
    "check_free",
    "fetch",
    "find",
    "from_environment",
    "identity",
    "is_as_written",
    "is_published",
    "publish",
    "published",
    "required",
    "save_publication",
    "stored",
    "try_keeping",
    "try_writing",
    "variables",
]
