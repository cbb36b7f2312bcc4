"""No secret of an address stays in what a run keeps and shows, however a stage or KFP has written it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.redaction import Redacted, redacted

QUOTINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "repr": repr,
    "JSON": json.dumps,
    "JSON, unescaped": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON with slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON in JSON": lambda text: json.dumps({"section": json.dumps({"source": text})}, indent=4),
    "thrice": lambda text: json.dumps([json.dumps([json.dumps([text])])]),
    "compact": lambda text: json.dumps({"a": text, "b": "me@home"}, separators=(",", ":")),
}
# what an address may hold (RFC 3986) and what people put there all the same
SECRETS = st.text(st.characters(codec="utf-8", categories=["L", "N"], include_characters="-._~!$&'()*+,;=%:^{|}"))


@pytest.mark.parametrize("quoting", QUOTINGS)
@given(user=SECRETS, query=SECRETS, fragment=SECRETS)
def test_of_an_address_the_place_is_left_and_no_secret(quoting: str, user: str, query: str, fragment: str):
    address = f"https://S3cret{user}κ@host.example:9/net.safetensors?sig={query}S3cret#{fragment}S3cret"

    left = redacted(f"said {QUOTINGS[quoting](address)} and more, {QUOTINGS[quoting]('last')}")

    assert "S3cret" not in left
    assert "host.example:9" in left
    assert left.endswith(f"and more, {QUOTINGS[quoting]('last')}")


@pytest.mark.parametrize(
    "text",
    [
        "torchvision://resnet18?weights=IMAGENET1K_V1",
        "s3://bucket/key?x#y",
        "https://host.example/a/path and https://other.example/@scope/name",
        '{"source": "https://host.example/net", "mail": "me@home"}',
        "progress teacher 1/2 bytes",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str):
    assert redacted(text) == text


def test_a_log_keeps_what_it_is_told_without_them():
    kept = io.StringIO()
    assert Redacted(kept).write("from https://a:b@host/x?y\n") == len("from https://a:b@host/x?y\n")
    assert kept.getvalue() == "from https://host/x\n"
