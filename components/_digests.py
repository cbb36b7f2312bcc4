"""What stages hand on beside their artifacts: the digests, as a parameter, which lies where the artifacts do not.

Whoever can write to the bucket can replace an artifact between two stages, manifest and all. A stage therefore takes
the digest of each artifact that it reads from the stages before it, and refuses other bytes.
"""

from typing import NamedTuple


class Digests(NamedTuple):
    """Of what a stage made, and of what it read and others need: name -> sha256 of the manifest, or of a report."""

    digests: dict
