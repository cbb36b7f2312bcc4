"""What stands for the bytes at an address, without reading them."""

from __future__ import annotations

import hashlib
import json

from resprout.storage.client import ObjectAddress, ObjectFacts, Storage
from resprout.storage.folders import whole


def identity(storage: Storage, address: ObjectAddress) -> str:
    """What stands for the bytes at an address right now: it changes when they do.

    Of an object it is the sha256 that was stored with it, else the server's own etag and the size. Of a folder it is
    the sha256 over its objects' names, etags and sizes, which a listing gives a thousand at a time.

    Returns:
        One word without spaces, as in `sha256:5d41…`.

    Raises:
        StorageError: there is nothing, or not all that was put there, or it cannot be asked.
    """
    found = storage.file(address)
    if found is not None:
        return f"sha256:{found.sha256}" if found.sha256 else f"etag:{_etag(found)}"
    start = len(address.key) + 1 if address.key else 0
    below = sorted((each.address.key[start:], _etag(each)) for each in whole(storage, address))
    return f"folder:{hashlib.sha256(json.dumps(below).encode()).hexdigest()}"


def _etag(found: ObjectFacts) -> str:
    return f"{found.etag.strip(chr(34))}-{found.size}"
