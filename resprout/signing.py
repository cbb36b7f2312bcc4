"""Signatures over a folder, as OpenSSF model signing defines them: made and checked by sigstore's `model-signing`.

A signature lists every file of the folder by its digest, and is a sigstore bundle; it lies in `signatures/`, which it
leaves out. Whoever has the public key checks it without Resprout.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from resprout import strict_json
from resprout.errors import ArtifactError, ResproutError
from resprout.files import opened, sha256_of

SIGNATURES = "signatures"
LARGEST_BYTES = 16 * 2**20


def check_key(key: Path) -> None:
    """Refuse a private key that nothing could be signed with, before the work whose result it is for.

    Raises:
        ResproutError: it cannot be read, is none, or model-signing is not installed.
    """
    _with_key(key, lambda signing: signing.Config().use_elliptic_key_signer(private_key=key))


def sign(folder: Path, key: Path) -> bytes:
    """A signature over all files of a folder but `signatures/`.

    Args:
        folder: with the name that the signature is to call it.
        key: the file of a private key: PEM, a curve of NIST (P-256, P-384, P-521), no password.

    Raises:
        ResproutError: as `check_key`.
    """
    return _signed(folder, _with_key(key, lambda signing: signing.Config().use_elliptic_key_signer(private_key=key)))


def sign_keyless(folder: Path) -> bytes:
    """The same, signed with the identity that a CI system gives its jobs (OIDC), and entered into sigstore's log.

    Raises:
        ResproutError: there is no such identity here, or sigstore cannot be reached.
    """
    signing = _library("signing")
    try:
        return _signed(folder, signing.Config().use_sigstore_signer(use_ambient_credentials=True))
    except Exception as error:  # of its libraries' many kinds
        raise ResproutError(
            "sigstore gives no signature here",
            why=_first_line(error),
            now="let RESPROUT_SIGNING_KEY name the file of a private key; or run it as a CI job that may ask for an "
            "identity (GitHub: permissions: id-token: write)",
        ) from None


def verify(folder: Path, signature: Path, public_key: Path) -> None:
    """Check that whoever holds the private key signed exactly these files.

    Raises:
        ArtifactError: they did not; or the public key cannot be read.
    """
    verifying = _library("verifying")
    try:
        hashing = _library("hashing").Config().set_ignored_paths(paths=[SIGNATURES], ignore_git_paths=False)
        checker = verifying.Config().set_hashing_config(hashing).use_elliptic_key_verifier(public_key=public_key)
    except (ValueError, TypeError, OSError) as error:
        raise ArtifactError(
            f"{public_key} is no public key that can be used",
            why=_first_line(error),
            now="give PEM as `openssl ec -in KEY -pubout` writes it, of P-256, P-384 or P-521",
        ) from None
    try:
        checker.verify(folder, signature)
        _check_all_signed(folder, signature)
    except Exception as error:  # whatever is wrong with a stranger's file, it is not that key's signature of this
        raise ArtifactError(
            f"{signature.name} is no signature of these files by that key",
            why=_first_line(error),
            now="check that the key is the publisher's, and fetch the version again",
        ) from None


def signer(signature: Path) -> str:
    """Who a signature says has made it, unchecked: `key 3f2a…` by the public key's sha256, or `sigstore`.

    Raises:
        ArtifactError: it is no signature, or its own name says that a byte of it was changed.
    """
    try:
        if f"{sha256_of(signature)}.json" != signature.name:
            raise ValueError("its name is the sha256 of what it was written with")
        material = _read(signature)["verificationMaterial"]
        hint = material["publicKey"]["hint"] if "publicKey" in material else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{signature.name} is no signature: {_first_line(error)}") from None
    return f"key {str(hint)[:16]!a}".replace("'", "") if hint else "an identity, by sigstore"


def name_of(signature: bytes) -> str:
    """The file name of a signature: its sha256, so that several lie side by side and none is ever replaced."""
    return f"{hashlib.sha256(signature).hexdigest()}.json"


def _check_all_signed(folder: Path, signature: Path) -> None:
    # a signature says itself which files it leaves out
    payload = strict_json.parse(base64.b64decode(_read(signature)["dsseEnvelope"]["payload"]))
    signed = {resource["name"] for resource in payload["predicate"]["resources"]}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if others := sorted(name for name in there - signed if not name.startswith(f"{SIGNATURES}/")):
        raise ValueError(f"it leaves out {', '.join(others[:3])}")


def _read(signature: Path) -> Any:
    with opened(signature) as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"it has more than {LARGEST_BYTES >> 20} MiB")
    return strict_json.parse(content)


def _signed(folder: Path, config: Any) -> bytes:
    hashing = _library("hashing").Config().set_ignored_paths(paths=[SIGNATURES], ignore_git_paths=False)
    with TemporaryDirectory() as elsewhere:
        signature = Path(elsewhere) / "signature"
        config.set_hashing_config(hashing).sign(folder, signature)
        return signature.read_bytes()


def _with_key(key: Path, made: Callable[[Any], Any]) -> Any:
    signing = _library("signing")
    try:
        return made(signing)
    except (ValueError, TypeError, OSError, AttributeError) as error:
        raise ResproutError(
            f"{key} is no private key that can sign",
            why=_first_line(error),
            now="make one: openssl ecparam -name prime256v1 -genkey -noout -out KEY; it has no password, so keep it "
            "where nobody else reads",
        ) from None


def _library(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"model_signing.{module}")
    except ImportError as error:
        raise ResproutError(
            f"model-signing cannot be imported: {error}",
            why="signatures are made and checked with it",
            now="pip install 'resprout[signing]'",
        ) from None


def _first_line(error: Exception) -> str:
    # of files that differ, the library goes on with every byte of both digests
    return (str(error).splitlines() or [type(error).__name__])[0].partition(": Expected")[0][:300]
