"""What an image holds, and what it does not."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.errors import ImageNotFound

from components._image import CPU_IMAGE, GPU_IMAGE
from resprout import __version__

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module", params=[CPU_IMAGE, GPU_IMAGE])
def image(engine: DockerClient, request: pytest.FixtureRequest) -> Any:
    try:
        return engine.images.get(request.param)
    except ImageNotFound:
        pytest.skip(f"there is no image {request.param}: make images builds it")


def run(engine: DockerClient, image: Any, script: str) -> str:
    output: bytes = engine.containers.run(
        image.id,
        ["sh", "-c", script],
        remove=True,
        read_only=True,
        tmpfs={"/tmp": "mode=1777"},
        network_mode="none",
        stderr=True,
    )
    return output.decode()


def test_it_says_what_it_is_and_is_never_root(image: Any):
    config = image.attrs["Config"]
    assert config["User"] == "65532:65532"
    assert config["Cmd"] == ["resprout", "doctor"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown", labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_it_works_without_a_network_on_a_file_system_that_cannot_be_written(engine: DockerClient, image: Any):
    output = run(engine, image, "resprout doctor")
    assert re.search(rf"^resprout +{re.escape(__version__)}, Python 3", output, flags=re.MULTILINE)
    assert "/tmp can be written" in output


def test_it_holds_the_pinned_packages_and_neither_a_compiler_nor_left_overs(engine: DockerClient, image: Any):
    constraints = (ROOT / "constraints.txt").read_text()
    output = run(
        engine, image, "resprout doctor; command -v gcc cc g++ clang; ls -A /root /var/cache/uv 2>/dev/null; true"
    )
    for package in ("torch", "torchvision", "kfp", "minio", "timm", "safetensors", "pydantic"):
        found = re.search(rf"^{package} +(\S+)", output, flags=re.MULTILINE)
        assert found, output
        assert f"{package}=={found[1].split('+')[0]}" in constraints
    after = output[output.index("/tmp can be written") :].splitlines()[1:]
    assert not any("gcc" in line or "g++" in line or "clang" in line or ".cache" in line for line in after)


def test_it_holds_the_components_where_kfp_looks_for_them(engine: DockerClient, image: Any):
    # as KFP starts a stage: no source, no path, in the image's own folder
    given = {"kind": "compress", "teacher": "torchvision://resnet18", "seed": 3, "recipe": {}, "placement": {}}
    executor_input = {"inputs": {"parameterValues": given}, "outputs": {"outputFile": "/tmp/output.json"}}
    arguments = f"--executor_input {shlex.quote(json.dumps(executor_input))} --function_to_execute plan"

    output = run(
        engine, image, f"python3 -m kfp.dsl.executor_main {arguments} >/dev/null && cat /tmp/output.json; echo"
    )

    made = json.loads(output)["parameterValues"]
    assert made["teacher"] == {"source": "torchvision://resnet18"} | made["teacher"]
    assert made["shards"] == ["1/1"]


def test_beside_it_lies_what_is_in_it(image: Any):
    name = image.attrs["RepoTags"][0].split(":")[0].replace("/", "-")
    revision = image.attrs["Config"]["Labels"]["org.opencontainers.image.revision"]
    bill = ROOT / "build" / f"{name}-{revision}.cdx.json"
    if not bill.exists():
        pytest.skip(f"there is no {bill.name}: the image was built elsewhere, or without syft")
    components = json.loads(bill.read_text())["components"]
    kinds = {component.get("purl", "").split("/")[0] for component in components}
    assert {"pkg:pypi", "pkg:deb"} <= kinds
    versions = {component["name"]: component.get("version") for component in components}
    assert f"torch=={versions['torch'].split('+')[0]}" in (ROOT / "constraints.txt").read_text()
