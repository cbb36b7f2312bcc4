"""Addresses that may hold secrets."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def without_secrets(url: str) -> str:
    """What may be recorded and shown of an address: of https, no user, password, query (a signature) and fragment."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
