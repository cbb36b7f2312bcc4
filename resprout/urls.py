"""Addresses that may hold secrets: what may be recorded and shown of them, and which may not be recorded at all."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"hf_[A-Za-z0-9]{30,}|gh[a-z]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|A[KS]IA[A-Z0-9]{16}")
# of a signed request, wherever object storage puts it
_SIGNED = re.compile(r"(?i)[?&#;][^?&#;=]*(?:sig|credential|token|secret|password|api_?key|access_?key)[^&=]*=")
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://")
_WEB = ("http", "https")


def secret_in(text: str) -> str:
    """What an address holds that is nobody else's to know, in words; "" where it holds nothing, or is no address.

    Any query of a web address may be a signature.
    """
    if _TOKEN.search(text):
        return "a token"
    match = _SCHEME.match(text)
    if match is None:
        return ""
    host, rest = _split(text[match.end() :])
    asked = re.search(r"[?#]" if match[1].lower() in _WEB else _SIGNED, rest)
    return "a password, or a query that may be a signature" if "@" in host or asked else ""


def without_secrets(text: str) -> str:
    """What may be recorded and shown of an address: no user, password, token, signature; of the web's, no query."""
    text = _TOKEN.sub("***", text)
    match = _SCHEME.match(text)
    if match is None:
        return text
    host, rest = _split(text[match.end() :])
    if match[1].lower() in _WEB or _SIGNED.search(rest):
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    return f"{match[0].lstrip()}{host.rpartition('@')[2]}{rest}"


def _split(address: str) -> tuple[str, str]:
    """The host with whoever asks it, and the rest."""
    end = next((match.start() for match in re.finditer(r"[/?#]", address)), len(address))
    return address[:end], address[end:]
