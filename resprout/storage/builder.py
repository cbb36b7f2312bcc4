"""Who a statement says has made a result, and what it is signed with: from the environment or secret files."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from resprout.statement import Builder

BUILDER, RUN, IMAGES, SIGNING_KEY = (f"RESPROUT_{name}" for name in ("BUILDER", "RUN", "IMAGES", "SIGNING_KEY"))
SECRETS = "RESPROUT_SIGNING_SECRETS"
"""A folder with the files `signingkey` and `builder`, as a secret is mounted; used where a variable says nothing."""


def from_environment(variables: Mapping[str, str] = os.environ) -> Builder:
    """The place that this process works in.

    Its name is RESPROUT_BUILDER, or in the file `builder`: a URI, of a Kubeflow Pipelines for example. Where nobody has
    given it one, it is this machine.
    """
    file = _secret("builder", variables)
    named = variables.get(BUILDER) or (file.read_text().strip() if file else "")
    return Builder(
        named or f"urn:resprout:machine:{socket.gethostname()}",
        variables.get(RUN, ""),
        tuple(variables.get(IMAGES, "").split()),
    )


def signing_key(variables: Mapping[str, str] = os.environ) -> Path | None:
    """The file of the private key: RESPROUT_SIGNING_KEY, or the file `signingkey`; None: nothing is to be signed."""
    named = variables.get(SIGNING_KEY)
    return Path(named) if named else _secret("signingkey", variables)


def _secret(name: str, variables: Mapping[str, str]) -> Path | None:
    folder = variables.get(SECRETS)
    return Path(folder) / name if folder and (Path(folder) / name).is_file() else None
