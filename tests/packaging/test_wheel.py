"""What is built and installed is whole, and is what the constraints say."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile):
    files = {
        str(path.relative_to(ROOT))
        for package in ("resprout", "components", "pipeline")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert files <= set(wheel.namelist())


def test_the_wheel_holds_what_kfp_finds_components_by_and_what_they_share(wheel: zipfile.ZipFile):
    listed = configparser.ConfigParser()
    listed.read_string(wheel.read("components/kfp_config.ini").decode())

    names = set(wheel.namelist())
    assert {f"components/{file}" for file in listed["Components"].values()} <= names
    assert {f"components/{path.name}" for path in (ROOT / "components").glob("_*.py")} <= names


def test_the_wheel_holds_the_recipes_and_nothing_of_the_workshop(wheel: zipfile.ZipFile):
    names = wheel.namelist()

    for recipe in (ROOT / "recipes").rglob("*.yaml"):
        assert f"resprout/recipes/{recipe.relative_to(ROOT / 'recipes')}" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"resprout", "components", "pipeline"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_installs_the_command(wheel: zipfile.ZipFile):
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))

    assert "resprout = pipeline.cli:app" in wheel.read(entry_points).decode()


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().replace("\\\n", " ").splitlines()
    return [Requirement(line.partition(" --hash=")[0]) for line in lines]


def requirements() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    found = [Requirement(line) for group in groups for line in group]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]  # an extra within an extra


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_constraints_fix_one_allowed_version_of_each_dependency(python: str):
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}

    def applies(requirement: Requirement) -> bool:
        return requirement.marker is None or requirement.marker.evaluate(environment)

    pinned: dict[str, Version] = {}
    for constraint in filter(applies, constraints()):
        name = canonicalize_name(constraint.name)
        assert name not in pinned, f"{name} is there twice for Python {python}"
        (specifier,) = constraint.specifier
        assert specifier.operator == "=="
        pinned[name] = Version(specifier.version)

    for requirement in filter(applies, requirements()):
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_the_constraints_name_no_place_to_fetch_from():
    assert not re.search(r"https?://|--index-url|--find-links|@ ", (ROOT / "constraints.txt").read_text())
