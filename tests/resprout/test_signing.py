"""Signatures over a folder: what one covers, and which keys can make one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from resprout import signing
from resprout.errors import ArtifactError, ResproutError


def make_key(folder: Path, curve: str = "prime256v1") -> tuple[Path, Path]:
    """A private key, and its public one."""
    folder.mkdir(exist_ok=True)
    for words in (
        ["ecparam", "-name", curve, "-genkey", "-noout", "-out", "key"],
        ["ec", "-in", "key", "-pubout", "-out", "key.pub"],
    ):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    return folder / "key", folder / "key.pub"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "version"
    (made / "model").mkdir(parents=True)
    (made / "model" / "weights").write_text("weights")
    (made / "report.html").write_text("a report")
    return made


def signed(folder: Path, key: Path) -> Path:
    signature = signing.sign(folder, key)
    (folder / signing.SIGNATURES).mkdir(exist_ok=True)
    file = folder / signing.SIGNATURES / signing.name_of(signature)
    file.write_bytes(signature)
    return file


@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1"])
def test_what_was_signed_is_known_again_beside_other_signatures(folder: Path, tmp_path: Path, curve: str):
    (one, public), (other, _) = make_key(tmp_path / "one", curve), make_key(tmp_path / "other")
    first = signed(folder, one)
    second = signed(folder, other)

    signing.verify(folder, first, public)
    assert first != second
    assert signing.signer(first) != signing.signer(second)
    with pytest.raises(ArtifactError, match="no signature of these files by that key"):
        signing.verify(folder, second, public)


@pytest.mark.parametrize("how", ["changed", "added", "gone", "renamed"])
def test_what_was_not_signed_is_refused(folder: Path, tmp_path: Path, how: str):
    key, public = make_key(tmp_path / "keys")
    signature = signed(folder, key)
    report = folder / "report.html"
    {
        "changed": lambda: report.write_text("another"),
        "added": lambda: (folder / "model" / ".gitignore").write_text("git's own are signed too"),
        "gone": report.unlink,
        "renamed": lambda: report.rename(folder / "other.html"),
    }[how]()

    with pytest.raises(ArtifactError, match="no signature of these files"):
        signing.verify(folder, signature, public)


def test_a_signature_that_leaves_files_out_is_refused(folder: Path, tmp_path: Path):
    from model_signing import hashing
    from model_signing import signing as theirs

    key, public = make_key(tmp_path / "keys")
    config = theirs.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=["report.html"]))
    config.sign(folder, tmp_path / "partial")

    with pytest.raises(ArtifactError, match="no signature of these files") as refused:
        signing.verify(folder, tmp_path / "partial", public)
    assert "leaves out report.html" in refused.value.why


def test_a_key_that_cannot_sign_is_refused_with_the_way_to_one(tmp_path: Path):
    _, public = make_key(tmp_path / "keys")
    wrong_curve, _ = make_key(tmp_path / "wrong", "secp256k1")
    subprocess.run(["openssl", "genrsa", "-out", tmp_path / "rsa", "2048"], check=True, capture_output=True)
    words = ["openssl", "ec", "-in", tmp_path / "keys" / "key", "-aes256", "-passout", "pass:x"]
    subprocess.run([*words, "-out", tmp_path / "locked"], check=True, capture_output=True)

    for key in (public, wrong_curve, tmp_path / "rsa", tmp_path / "locked", tmp_path / "none", tmp_path):
        with pytest.raises(ResproutError, match="is no private key that can sign") as refused:
            signing.check_key(key)
        assert refused.value.why
        assert "openssl ecparam" in refused.value.now
    with pytest.raises(ArtifactError, match="is no public key"):
        signing.verify(tmp_path, tmp_path / "signature", tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"verificationMaterial": 1}', b"[" * 10_000, b"\xff"])
def test_what_is_no_signature_is_refused_in_words(folder: Path, tmp_path: Path, content: bytes):
    _, public = make_key(tmp_path / "keys")
    file = folder / signing.name_of(content)
    file.write_bytes(content)

    with pytest.raises(ArtifactError, match="is no signature"):
        signing.signer(file)
    with pytest.raises(ArtifactError, match="is no signature"):
        signing.verify(folder, file, public)


def test_a_changed_byte_of_a_signature_shows_without_a_key(folder: Path, tmp_path: Path):
    signature = signed(folder, make_key(tmp_path / "keys")[0])
    fields = json.loads(signature.read_text())
    fields["verificationMaterial"]["publicKey"]["hint"] = "somebody else"
    signature.write_text(json.dumps(fields))

    with pytest.raises(ArtifactError, match="its name is the sha256"):
        signing.signer(signature)


def test_who_signed_is_printed_without_what_a_terminal_obeys(tmp_path: Path):
    content = json.dumps({"verificationMaterial": {"publicKey": {"hint": "\x1b[31m"}}}).encode()
    (tmp_path / signing.name_of(content)).write_bytes(content)

    assert signing.signer(tmp_path / signing.name_of(content)).isprintable()
