"""How many bytes an artifact takes."""

from __future__ import annotations

import bz2
from pathlib import Path

from resprout.types import StoredSize

BLOCK = 1 << 20


def stored_size(directory: str | Path) -> StoredSize:
    """What a folder takes to store or to ship, as it is and compressed.

    All of its files count, for all of them travel: a student's mask and manifest too. bzip2 stands for compression
    because its output is the same on every machine; zlib's differs between its versions and forks, and the digest
    of an evaluation that records it would, too.
    """
    files = [path for path in Path(directory).rglob("*") if path.is_file()]
    return StoredSize(
        size_bytes=sum(path.stat().st_size for path in files),
        compressed_size_bytes=sum(map(_compressed_size, files)),
    )


def _compressed_size(path: Path) -> int:
    compressor, size = bz2.BZ2Compressor(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            size += len(compressor.compress(block))
    return size + len(compressor.flush())
