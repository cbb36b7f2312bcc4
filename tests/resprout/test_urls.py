"""No secret of an address is recorded: it is refused with a way out, or left out of what is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.plan import plan
from pipeline.cli import app
from resprout import recipe as recipes
from resprout.errors import RecipeError
from resprout.recipe import Recipe
from resprout.recipe.form import kind_of, refuse_secrets
from resprout.urls import secret_in, without_secrets

TOKEN = "hf_" + "aB3" * 11
SECRET = ("hunter2", "TOPSECRET", TOKEN)
ELSEWHERE = {  # credentials have another way there, so that no recipe may hold them
    "teacher": f"hf://{TOKEN}@owner/net",
    "revision": f"hf://owner/net@{TOKEN}",
    "bucket": "s3://alice:hunter2@bucket/net.pt",
    "signed": "s3://bucket/net.pt?X-Amz-Credential=a&X-Amz-Signature=TOPSECRET",
}
WEB = (
    "https://alice:hunter2@host/net.pt",
    "https://host/net.pt?X-Amz-Signature=TOPSECRET",
    "https://host/net.pt?se=2026&sig=TOPSECRET",
    "https://host/net.pt#TOPSECRET",
    f"https://host/{TOKEN}/net.pt",
)
HARMLESS = (
    "torchvision://resnet18?weights=IMAGENET1K_V1",
    "timm://resnet18.a1_in1k",
    "hf://owner/net@main",
    "s3://bucket/sets/what?/a@b#c.pt",
    "https://host/a@b/net.pt",
    "runs/a?b=c@d",
    "",
)


@pytest.mark.parametrize("address", [*WEB, *ELSEWHERE.values(), "HTTPS://a:hunter2@host/n"])
def test_what_is_shown_of_an_address_holds_no_secret(address: str) -> None:
    assert secret_in(address)
    shown = without_secrets(address)
    assert not any(secret in shown for secret in SECRET)
    assert not secret_in(shown)


@pytest.mark.parametrize("address", HARMLESS)
def test_an_address_without_secrets_stays_as_it_is(address: str) -> None:
    assert not secret_in(address)
    assert without_secrets(address) == address


@pytest.mark.parametrize(
    ("section", "field"),
    [
        *[("teacher", "source"), ("evaluation", "data"), ("synthesis", "data")],
        *[("publishing", "to"), ("placement", "checkpoints"), ("teacher", "architecture")],
    ],
)
@pytest.mark.parametrize("address", ELSEWHERE.values(), ids=ELSEWHERE)
def test_no_recipe_holds_credentials_that_have_another_way(
    tmp_path: Path, section: str, field: str, address: str
) -> None:
    text = {"teacher": {"source": "x"}, "synthesis": {"method": "images", "data": "y"}}
    text[section] = {**text.get(section, {}), field: address}
    path = tmp_path / "net.yaml"
    path.write_text(str(text))
    with pytest.raises(RecipeError, match=rf"{section}\.{field}: ") as refusal:
        recipes.load(path)
    assert not any(secret in str(refusal.value) for secret in SECRET)
    assert "environment" in refusal.value.now


@pytest.mark.parametrize("address", WEB)
@pytest.mark.parametrize("command", ["compile", "submit"])
def test_a_web_address_with_a_secret_is_neither_compiled_nor_sent(tmp_path: Path, command: str, address: str) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(f"teacher: {{source: '{address}', sha256: '{64 * '0'}'}}")
    options = ["--output", str(tmp_path / "out.yaml")] if command == "compile" else ["--host", "http://127.0.0.1:9"]

    result = CliRunner().invoke(app, [command, str(path), *options])

    assert result.exit_code == (2 if command == "submit" else 1)
    assert "resprout storage put FILE s3://BUCKET/KEY" in result.output
    assert not any(secret in result.output for secret in SECRET)
    assert not (tmp_path / "out.yaml").exists()


def test_any_field_is_looked_at() -> None:
    fields = {"teacher": {"source": "x", "class_names": ["a", WEB[0]]}}
    with pytest.raises(RecipeError, match=r"teacher\.class_names\.1 holds a password"):
        refuse_secrets(Recipe.model_validate(fields))


def test_what_was_typed_into_kubeflows_form_goes_no_further(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KFP_POD_NAME", "resprout-plan")
    given: dict[str, Any] = {"kind": kind_of(Recipe.model_validate({"teacher": {"source": "x"}}))}
    with pytest.raises(RecipeError, match=r"teacher\.source holds a password"):
        plan.python_func(**given, teacher=WEB[0], seed=0, recipe={}, placement={})
    assert "hunter2" not in capsys.readouterr().out


def test_what_is_wrong_with_an_address_is_told_without_its_secret() -> None:
    with pytest.raises(RecipeError) as refusal:
        recipes.section("publishing", {"to": WEB[0]})
    assert "hunter2" not in str(refusal.value)
