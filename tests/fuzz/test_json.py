from __future__ import annotations

import json

from resprout.strict_json import parse
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import changed_json

RECORD = {
    "kind": "teacher",
    "seed": None,
    "inputs": [{"name": "a", "sha256": "0" * 64}],
    "about": {"mean": [0.5, 1e-3]},
}


def test_any_text_is_read_or_refused(fuzz: Fuzz) -> None:
    def read(content: bytes) -> None:
        try:
            value = parse(content)
        except ValueError:
            return
        json.dumps(value, ensure_ascii=False).encode()

    fuzz(changed_json(RECORD), read)
