"""Whether a bucket can be written to, found out before hours of work."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory

from resprout.errors import StorageAwayError, StorageError
from resprout.storage.client import ObjectAddress, Storage

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
    found = re.search(rb"<UploadId>([^<]+)</UploadId>", begun.data)
    if found is None:
        raise StorageError(f"cannot write {address}", why=f"{storage.endpoint} begins no upload, but does not say why")
    upload = {"uploadId": found[1].decode()}
    try:
        storage.send("PUT", address, {"partNumber": "1", **upload}, body=os.urandom(TRIAL_BYTES))
    finally:
        storage.send("DELETE", address, upload)


def round_trip(storage: Storage, bucket: str) -> bool:
    """Write a small object into a bucket, read it, and remove it.

    Returns:
        Whether it was removed: where the bucket's policy forbids that, it stays, and the next time replaces it.

    Raises:
        StorageAwayError: there is no room, or no server.
        StorageError: writing or reading is refused, or something else is read than was written.
    """
    address = ObjectAddress(bucket, TRIAL_NAME)
    with TemporaryDirectory() as folder:
        file = Path(folder) / TRIAL_NAME
        file.write_bytes(os.urandom(TRIAL_BYTES))
        digest = storage.upload(file, address)
        storage.download(address, file, sha256=digest)
    try:
        storage.remove(address)
    except StorageAwayError:
        raise
    except StorageError:
        return False
    return True
