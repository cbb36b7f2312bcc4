"""Nothing from outside is installed, pulled or run but the bytes that were meant."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
INSTALLERS = ("Makefile", "ci/install.sh", ".ci/run", "docker/Dockerfile", "docker/debian-base.sh", "action.yml")
DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
COMMIT = re.compile(r"[^@\s]+@[0-9a-f]{40}")

BUILDS_ITSELF = """
import pathlib, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "resprout-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / name, "w") as wheel:
        for file, text in FILES.items():
            wheel.writestr(f"resprout-1.0.dist-info/{file}", text)
        wheel.writestr("resprout-1.0.data/scripts/resprout", "#!python\\nimport inner\\n")
        wheel.writestr("resprout-1.0.dist-info/RECORD", "")
    return name
build_editable = build_wheel
FILES = {
    "METADATA": "Metadata-Version: 2.1\\nName: resprout\\nVersion: 1.0\\nRequires-Dist: outer\\n",
    "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "resprout"
version = "1.0"
dependencies = ["outer>=1"]
optional-dependencies = { pipeline = [], storage = [] }
"""


@dataclass(frozen=True)
class Checkout:
    """A checkout whose packages come from an index in a folder."""

    folder: Path

    def offer(self, name: str, *requires: str, script: str = "", note: str = "") -> str:
        """Put a package into the index, in place of the one that is there; its constraint, with the hash of now."""
        place = self.folder / "index" / name
        place.mkdir(parents=True, exist_ok=True)
        wheel = place / f"{name}-1.0-py3-none-any.whl"
        about = "".join(f"Requires-Dist: {it}\n" for it in requires)
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{name}.py", f"# {note}")
            archive.writestr(
                f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{about}"
            )
            archive.writestr(
                f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            if script:
                program = zipfile.ZipInfo(f"{name}-1.0.data/scripts/{name}")
                program.external_attr = 0o100755 << 16
                archive.writestr(program, script)
            archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
        (place / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
        return f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        index = (self.folder / "index").as_uri()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        given = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index, "UV_NO_CACHE": "1"}
        environment = {**kept, **given}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def installed(self) -> set[str]:
        return {path.name.partition("-")[0] for path in (self.folder / ".venv").glob("lib/*/site-packages/*.dist-info")}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    (tmp_path / "ci").mkdir()
    for name in ("Makefile", "ci/install.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "backend.py").write_text(BUILDS_ITSELF)
    uv = made.offer("uv", script=f'#!/bin/sh\nexec "{UV}" "$@"\n')
    (tmp_path / "constraints.txt").write_text(made.offer("inner") + made.offer("outer", "inner") + uv)
    return made


INSTALL, MAKE = ("ci/install.sh", ".venv"), ("make", ".venv/.ready")
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.mark.parametrize("command", [INSTALL, MAKE], ids=lambda command: command[0])
def test_what_the_hashes_name_is_installed(checkout: Checkout, command: tuple[str, ...]):
    done = checkout.run(*command)

    assert done.returncode == 0, done.stderr
    assert {"resprout", "outer", "inner"} <= checkout.installed()


@pytest.mark.parametrize(
    ("command", "lie", "kept_out"),
    [
        (INSTALL, lambda index: index.offer("outer", "inner", "stranger") + index.offer("stranger"), "stranger"),
        (INSTALL, lambda index: index.offer("uv", script="#!/bin/sh\nexit 0\n"), "uv"),
        (MAKE, lambda index: index.offer("inner", note="other bytes under the same version"), "inner"),
    ],
    ids=["a dependency more", "another installer", "another dependency"],
)
def test_an_index_that_lies_is_refused(
    checkout: Checkout, command: tuple[str, ...], lie: Callable[[Checkout], Any], kept_out: str
):
    lie(checkout)

    done = checkout.run(*command)

    assert done.returncode != 0
    assert re.search("hash", done.stderr, re.IGNORECASE), done.stderr
    assert not {"resprout", kept_out} & checkout.installed()


def test_every_constraint_has_hashes():
    lines = (ROOT / "constraints.txt").read_text().replace("\\\n", " ").splitlines()
    assert lines
    for line in lines:
        assert re.search(r"==\S+.*(\s+--hash=sha256:[0-9a-f]{64})+$", line), line


@pytest.mark.parametrize("file", INSTALLERS)
def test_every_install_checks_hashes_or_is_of_a_file_made_here(file: str):
    lines = re.sub(r"\\\n\s*", "", (ROOT / file).read_text()).splitlines()
    for line in lines:
        if re.search(r"pip install|pip download|uv build", line) and not line.lstrip().startswith("#"):
            assert re.search(r"--require-\S*hashes|--no-deps /wheel/\*\.whl|--only-binary :all:", line), line


def test_base_images_are_named_by_digest():
    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", (ROOT / "docker/Dockerfile").read_text(), re.M)
    template = yaml.safe_load((ROOT / "examples/ci/gitlab.yml").read_text())[".resprout"]
    for image in (base, template["image"]):
        assert DIGEST.fullmatch(image), image
    froms = re.findall(r"^FROM (\S+)", (ROOT / "docker/Dockerfile").read_text(), re.M)
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "docker/Dockerfile").read_text(), re.M)
    assert set(froms) <= {"${BASE_IMAGE}", *stages}


def test_actions_and_checkouts_are_named_by_commit():
    for file in ("action.yml", *(str(path.relative_to(ROOT)) for path in (ROOT / "examples/ci").glob("*.yml"))):
        for action in _values(yaml.safe_load((ROOT / file).read_text()), "uses"):
            assert COMMIT.fullmatch(action), action
    for action in re.findall(r"uses: (\S+)", (ROOT / "docs/ci.md").read_text()):
        assert COMMIT.fullmatch(action), action
    variables = yaml.safe_load((ROOT / "examples/ci/gitlab.yml").read_text())[".resprout"]["variables"]
    assert re.fullmatch("[0-9a-f]{40}", variables["RESPROUT_COMMIT"])


def _values(part: Any, key: str) -> Iterator[Any]:
    if isinstance(part, dict):
        for name, value in part.items():
            yield from [value] if name == key else _values(value, key)
    elif isinstance(part, list):
        for value in part:
            yield from _values(value, key)
