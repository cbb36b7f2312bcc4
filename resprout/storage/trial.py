"""Whether a bucket can be written to, found out before hours of work."""

from __future__ import annotations

import os
import secrets

from resprout.errors import StorageError
from resprout.storage.client import ObjectAddress, Storage
from resprout.storage.parts import upload_id

TRIAL_BYTES = 64 * 2**10
"""More than a server may keep beside an object's name instead of where objects lie."""
TRIAL_NAME = "resprout-write-test"


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
