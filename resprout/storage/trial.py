"""Whether a bucket can be written to, and whether its server keeps what is there, found out before hours of work."""

from __future__ import annotations

import os
import secrets

from resprout.errors import StorageError
from resprout.storage.client import ObjectAddress, Storage
from resprout.storage.parts import upload_id

TRIAL_BYTES = 64 * 2**10
"""More than a server may keep beside an object's name instead of where objects lie."""
TRIAL_NAME = "resprout-write-test"
_CONTENT = b"Written once by Resprout, to find out whether this server overwrites what it is asked to keep. Leave it.\n"


def try_writing(storage: Storage, prefix: ObjectAddress) -> None:
    """Write a little below a prefix that never becomes an object: a part of an upload that is thrown away.

    It needs the rights that storing a file needs, and room, and leaves nothing, also where nothing may be removed.
    That there is room for more than a little, or tomorrow, it cannot tell.

    Raises:
        StorageAwayError: there is no room, or no server.
        StorageError: it is refused: the bucket is not there, these credentials may not write.
    """
    address = prefix / f"{TRIAL_NAME}-{secrets.token_hex(4)}"
    begun = storage.send("POST", address, {"uploads": ""})
    try:
        upload = {"uploadId": upload_id(begun)}
    except ValueError as error:
        raise StorageError(f"cannot write {address}", why=f"{storage.endpoint}: {error}") from error
    try:
        storage.send("PUT", address, {"partNumber": "1", **upload}, body=os.urandom(TRIAL_BYTES))
    finally:
        storage.send("DELETE", address, upload)


def try_keeping(storage: Storage, prefix: ObjectAddress) -> None:
    """Find out whether a server heeds `If-None-Match`, without which a published version could be overwritten.

    A small object is stored below the prefix the first time, and stays, since what keeps others may not be removed.

    Raises:
        StorageError: it stores what it was asked not to, or refuses both.
    """
    address = prefix / TRIAL_NAME
    if storage.claim(address, _CONTENT) and storage.claim(address, _CONTENT):
        raise StorageError(
            f"{storage.endpoint} overwrites {address}, though it was asked not to",
            why="it ignores If-None-Match: of two who publish one version at once, the later would replace the other's",
            now="publish to a server that heeds it: AWS S3, MinIO and SeaweedFS do; or bring this one up to date",
        )
