"""A labelled test set arrives with the right pixels under the right labels, or not at all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from resprout.datasets import evenly_spread, load_labelled, save_labelled
from resprout.errors import DatasetError
from resprout.types import InputSpec, LabelledImages, ModelInfo

NUMBERED = ("0", "1", "2")
ANIMALS = ("cat", "dog", "ape")


def info(class_names: tuple[str, ...] = ANIMALS, shape: tuple[int, int, int] = (3, 4, 4)) -> ModelInfo:
    return ModelInfo("any", len(class_names), InputSpec(shape, (0.5,) * shape[0], (0.5,) * shape[0]), class_names)


def picture(path: Path, value: int = 0, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode != "RGB" else (value, 0, 255)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """2 cats, 3 dogs, 1 ape; each image's red is 10 times its label in ANIMALS, plus its number."""
    for label, (name, count) in enumerate(zip(ANIMALS, (2, 3, 1), strict=True)):
        for number in range(count):
            picture(tmp_path / "set" / name / f"{number}.png", 10 * label + number)
    return tmp_path / "set"


def test_folders_are_matched_to_the_class_names_whatever_their_order(folder: Path) -> None:
    data = load_labelled(folder, info=info())
    assert data.images.dtype == torch.uint8
    assert data.images.shape == (6, 3, 4, 4)
    assert data.labels.tolist() == [2, 0, 0, 1, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == [20, 0, 1, 10, 11, 12]
    assert data.images[:, 2].eq(255).all()
    assert data.class_names == ANIMALS


def test_without_class_names_folders_count_in_sorted_order(folder: Path) -> None:
    assert load_labelled(folder, info=info(NUMBERED)).labels.tolist() == [0, 1, 1, 2, 2, 2]


def test_folders_called_by_number_are_these_numbers(tmp_path: Path) -> None:
    for name in ("2", "10", "0"):
        picture(tmp_path / name / "x.png", int(name))
    names = tuple(str(number) for number in range(11))
    data = load_labelled(tmp_path, info=info(names))
    assert data.labels.tolist() == data.images[:, 0, 0, 0].tolist() == [0, 10, 2]


def test_other_files_and_nested_folders(folder: Path) -> None:
    picture(folder / "ape" / "more" / "y.PNG", 29)
    (folder / "ape" / "notes.txt").write_text("not an image")
    (folder / "ape" / "._0.png").write_text("what macOS leaves behind")
    (folder / ".cache").mkdir()
    assert load_labelled(folder, info=info()).images[:2, 0, 0, 0].tolist() == [20, 29]


def test_another_size_is_scaled_to_cover_and_centre_cropped(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (8, 24, 3), dtype=np.uint8)
    expected = np.array(Image.fromarray(wide).resize((12, 4), Image.Resampling.BICUBIC))[:, 4:8].astype(int)
    (tmp_path / "cat").mkdir()
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "cat" / "tall.png")
    Image.fromarray(wide).save(tmp_path / "cat" / "wide.png")
    tall_read, wide_read = load_labelled(tmp_path, info=info()).images.permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(wide_read - expected).max() <= 1  # rounding
    assert np.abs(tall_read - expected.transpose(1, 0, 2)).max() <= 1


def test_grey_and_colour_are_converted_to_what_the_teacher_takes(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "grey.png", 77, mode="L")
    assert load_labelled(tmp_path, info=info()).images.eq(77).all()
    Image.new("RGB", (4, 4), (77, 77, 77)).save(tmp_path / "cat" / "grey.png")
    grey = load_labelled(tmp_path, info=info(shape=(1, 4, 4))).images
    assert grey.shape == (1, 1, 4, 4)
    assert grey.eq(77).all()


def test_a_palette_is_turned_into_colours_before_it_is_scaled(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (9, 9), (10, 200, 30)).quantize(4).save(tmp_path / "cat" / "a.png")
    assert load_labelled(tmp_path, info=info()).images[0, :, 2, 2].tolist() == [10, 200, 30]


@pytest.mark.parametrize(("max_images", "expected"), [(3, [1, 1, 1]), (5, [1, 2, 2]), (6, [1, 2, 3]), (99, [1, 2, 3])])
def test_max_images_is_balanced_over_the_classes(folder: Path, max_images: int, expected: list[int]) -> None:
    data = load_labelled(folder, info=info(), max_images=max_images)
    assert sorted(Counter(data.labels.tolist()).values()) == expected
    assert (data.images[:, 0, 0, 0] // 10).tolist() == data.labels.tolist()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70))
def test_spreading_is_exact_balanced_and_even(labels: list[int], max_images: int) -> None:
    chosen = evenly_spread(torch.tensor(labels), max_images)
    assert len(chosen) == len(set(chosen.tolist())) == min(len(labels), max_images)
    available, taken = Counter(labels), Counter(labels[index] for index in chosen)
    unfinished = [taken[label] for label in available if taken[label] < available[label]]
    assert max(taken.values()) - min(unfinished, default=max(taken.values())) <= 1


def test_within_a_class_the_images_are_evenly_spaced() -> None:
    assert evenly_spread(torch.zeros(9, dtype=torch.int64), 3).tolist() == [0, 3, 6]


def test_a_missing_or_empty_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there are no labelled images at"):
        load_labelled(tmp_path / "nowhere", info=info())
    picture(tmp_path / "loose.png")
    with pytest.raises(DatasetError, match="holds no class folders"):
        load_labelled(tmp_path, info=info())
    (tmp_path / "cat").mkdir()
    with pytest.raises(DatasetError, match=r"cat holds no image"):
        load_labelled(tmp_path, info=info())


def test_an_unknown_class_is_refused_with_the_nearest_name(folder: Path) -> None:
    picture(folder / "dogs" / "a.png")
    with pytest.raises(DatasetError, match=r"'dogs' that the teacher does not know; did you mean 'dog'\?"):
        load_labelled(folder, info=info())


def test_unnamed_classes_need_all_their_folders(folder: Path) -> None:
    with pytest.raises(DatasetError, match="has 3 classes, the teacher has 4"):
        load_labelled(folder, info=info(("0", "1", "2", "3")))


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_an_unreadable_image_is_named(folder: Path, content: bytes | None) -> None:
    path = picture(folder / "cat" / "broken.png", size=(64, 64))
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(DatasetError, match=r"broken\.png cannot be read"):
        load_labelled(folder, info=info())


def test_sixteen_bits_are_refused_rather_than_clipped(folder: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(folder / "cat" / "deep.png")
    with pytest.raises(DatasetError, match=r"deep\.png has more than 8 bits"):
        load_labelled(folder, info=info())


def test_a_packed_set_reads_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    data = load_labelled(folder, info=info())
    save_labelled(data, tmp_path / "packed.safetensors")
    again = load_labelled(tmp_path / "packed.safetensors", info=info())
    assert torch.equal(again.images, data.images)
    assert torch.equal(again.labels, data.labels)
    assert again.class_names == data.class_names
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["packed.safetensors"]


def packed(path: Path, labels: list[int], names: tuple[str, ...] = ANIMALS, size: int = 4, channels: int = 3) -> Path:
    images = torch.tensor(labels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, size, size)
    save_labelled(LabelledImages(images, torch.tensor(labels, dtype=torch.int64), names), path)
    return path


def test_a_packed_set_is_matched_by_class_name_scaled_and_thinned_out(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.safetensors", [0, 0, 1, 1, 2, 2], names=("dog", "ape", "cat"), size=6, channels=1)
    data = load_labelled(path, info=info(), max_images=3)
    assert data.images.shape == (3, 3, 4, 4)
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert data.labels.tolist() == [1, 2, 0]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], []])
def test_packed_labels_outside_the_classes_are_refused(tmp_path: Path, labels: list[int]) -> None:
    with pytest.raises(DatasetError, match="3 classes need labels from 0 to 2"):
        load_labelled(packed(tmp_path / "p.safetensors", labels), info=info())


def test_packed_labels_without_class_names_count_by_position(tmp_path: Path) -> None:
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([2, 1])
    save_file({"images": images, "labels": labels}, tmp_path / "p.safetensors")
    assert load_labelled(tmp_path / "p.safetensors", info=info()).labels.tolist() == [2, 1]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"not one")
    save_file({"images": torch.zeros(2, 3, 4, 4)}, tmp_path / "b.safetensors")
    save_file({"images": torch.zeros(2, 3, 4, 4), "labels": torch.zeros(2)}, tmp_path / "c.safetensors")
    for name, message in (("a", "not a packed"), ("b", "not a packed"), ("c", "holds torch.float32 images")):
        with pytest.raises(DatasetError, match=message):
            load_labelled(tmp_path / f"{name}.safetensors", info=info())


def test_images_of_other_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="2 channels"):
        load_labelled(packed(tmp_path / "p.safetensors", [0], channels=2), info=info())
