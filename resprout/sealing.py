"""States of long work as files that only who holds a key can have written.

A state decides a result as the inputs do, and lies where others may write. So each file begins with an HMAC-SHA256
(RFC 2104) of its name and its content, which is checked before anything of it is parsed. Whatever is wrong with a file,
its work can be done again: it counts as none, and a line in the log says why.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load, save
from torch import Tensor

from resprout.errors import ArtifactError, ResproutError
from resprout.files import opened

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Named tensors, and JSON facts."""
T = TypeVar("T")
MAC_BYTES = 32
BESIDE_TENSORS = 1 << 24
"""Bytes that names, facts and what a state was resumed from may take in a file."""

_log = logging.getLogger("resprout.checkpoints")


class Seals:
    """Writes and reads states under one key, and remembers which that it did not write itself went into the work."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._written: frozenset[str] = frozenset()
        self._resumed: frozenset[str] = frozenset()
        self._told: set[str] = set()

    @property
    def resumed(self) -> tuple[str, ...]:
        """The sha256 of each state by an earlier process that was used, and of those that went into these."""
        return tuple(sorted(self._resumed))

    def write(self, path: Path, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Write a state, not atomically."""
        storable = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        facts = {"about": json.dumps(dict(about)), "resumed": json.dumps(self.resumed)}
        content = save(storable, facts)
        mac = self._mac(name, content)
        with path.open("wb") as file:
            file.write(mac)
            file.write(content)
        self._written |= {_sha256(mac, content)}

    def read(self, path: Path, name: str, made_of: Callable[[State], T], *, at_most: int) -> T | None:
        """What `made_of` makes of the state in a file; None where there is no file, or it does not count.

        Args:
            path: the file.
            name: that it was written under.
            made_of: refuses a state that is of no use by raising anything, and changes nothing then.
            at_most: bytes that the tensors take; a file that is larger is not read.
        """
        try:
            mac, content = _parts(path, at_most + BESIDE_TENSORS)
            if not hmac.compare_digest(mac, self._mac(name, content)):
                raise ArtifactError("it was changed, or kept by another run")
            facts = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            before, digest = json.loads(facts["resumed"]), _sha256(mac, content)
            made = made_of((load(content), json.loads(facts["about"])))
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever it is, it would be the same at each try
            self.tell(name, error)
            return None
        if digest not in self._written:
            self._resumed |= {digest, *before}
        return made

    def tell(self, name: str, error: Exception) -> None:
        """Say why a state does not count, once for each reason."""
        reason = error.what if isinstance(error, ResproutError) else f"{type(error).__name__}: {error}"
        reason = reason.partition("\n")[0]
        if reason not in self._told:
            self._told.add(reason)
            _log.warning("checkpoints: %s does not count: %s; its work is done again", name, reason)

    def _mac(self, name: str, content: bytes) -> bytes:
        mac = hmac.new(self._key, len(name.encode()).to_bytes(8, "big") + name.encode(), hashlib.sha256)
        mac.update(content)
        return mac.digest()


def _parts(path: Path, at_most: int) -> tuple[bytes, bytes]:
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > MAC_BYTES + at_most:
            raise ArtifactError("it is larger than such a state can be")
        return file.read(MAC_BYTES), file.read(at_most)  # it may have grown since


def _sha256(mac: bytes, content: bytes) -> str:
    digest = hashlib.sha256(mac)
    digest.update(content)
    return digest.hexdigest()
