from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st

from resprout import signing, statement, verification
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import changed, changed_json, damaged
from tests.resprout.test_statement import BUILDER, EVALUATION, FILES

MADE = statement.build(FILES, EVALUATION, {"seed": 0}, BUILDER).to_bytes()


def _sealed(fields: object) -> bytes:
    """As a liar would write it: changed, and its digest of itself made anew."""
    try:
        fields["predicate"].pop(statement.SEAL, None)  # type: ignore[index]
        fields["predicate"][statement.SEAL] = statement._seal(
            {  # type: ignore[index]
                **fields,  # type: ignore[dict-item]
                "predicate": dict(fields["predicate"]),  # type: ignore[index]
            }
        )
        return statement._dump(fields)  # type: ignore[arg-type]
    except (TypeError, KeyError, AttributeError, ValueError):
        return json.dumps(fields).encode()


def test_any_statement_is_read_or_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    def read(content: bytes) -> None:
        (tmp_path / "statement.json").write_bytes(content)
        stated = statement.read(tmp_path / "statement.json")
        assert stated.to_bytes() == content
        verified = verification.verify(tmp_path)
        "\n".join(finding.said for finding in verified.findings).encode()

    valid = json.loads(MADE)
    fuzz(st.one_of(damaged(MADE), changed_json(valid), changed(valid).map(_sealed)), read)


def test_any_signature_is_read_or_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    valid = {"verificationMaterial": {"publicKey": {"hint": "0" * 64}, "tlogEntries": []}, "dsseEnvelope": {}}

    def read(content: bytes) -> None:
        file = tmp_path / signing.name_of(content)
        file.write_bytes(content)
        try:
            assert signing.signer(file).isprintable()
        finally:
            file.unlink()

    fuzz(st.one_of(changed_json(valid), damaged(json.dumps(valid).encode())), read)
