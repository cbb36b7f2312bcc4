"""A labelled test set arrives with the right pixels under the right labels, or not at all."""

from __future__ import annotations

import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torchvision.datasets import ImageFolder

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


def test_without_class_names_folders_count_in_sorted_order_and_that_is_said(folder: Path) -> None:
    data = load_labelled(folder, info=info(NUMBERED))
    assert data.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert data.class_names == ("ape", "cat", "dog"), "the set's own, since the teacher has none"
    assert data.notes == (
        "no class names: folders map to logits in alphabetical order: ape -> 0, cat -> 1, dog -> 2; "
        "set teacher.class_names where the teacher was trained in another order",
    )


def numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def numbered(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        picture(folder / name / "x.png")
    return folder


FROM_ONE = [str(number) for number in range(1, 13)]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            numbers(12),
            "sorted as text, as torchvision's ImageFolder has them: 0 -> 0, 1 -> 1, 10 -> 2, 11 -> 3, 2 -> 4",
        ),
        (FROM_ONE, 'teacher.class_names: ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]'),
        ([f"c{number}" for number in range(12)], 'teacher.class_names: ["c0", "c1", "c2"'),
        ([f"{number}_cat" for number in range(12)], 'teacher.class_names: ["0_cat", "1_cat"'),
        ([f"{number:03}" for number in range(1, 13)], "by number: 001 -> 0, 002 -> 1"),
        (numbers(10), "by number: 0 -> 0, 1 -> 1"),
        ([str(number) for number in range(5, 50, 5)], "sorted as text"),
    ],
)
def test_without_names_folders_are_the_logits_that_image_folder_makes_them(
    tmp_path: Path, names: Iterable[str], told: str
) -> None:
    folder = numbered(tmp_path, names)
    data = load_labelled(folder, info=info(numbers(len(list(names)))))
    of_torchvision = ImageFolder(str(folder))
    assert data.labels.tolist() == of_torchvision.targets
    assert list(data.class_names) == of_torchvision.classes
    assert told in data.notes[0]


def test_numbers_that_were_given_as_class_names_are_matched_by_value(tmp_path: Path) -> None:
    for name in ("2", "10", "007"):
        picture(tmp_path / name / "x.png", int(name))
    data = load_labelled(tmp_path, info=replace(info(numbers(11)), numbers_are_names=True))
    assert data.labels.tolist() == data.images[:, 0, 0, 0].tolist() == [7, 10, 2]
    assert data.notes == (
        "classes map to logits by name: 007 -> 7, 10 -> 10, 2 -> 2; 8 of the teacher's 11 are not there",
    )


def test_a_class_is_found_in_any_unicode_form(tmp_path: Path) -> None:
    written, decomposed = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
    for name, teachers in ((written, decomposed), (decomposed, written)):
        folder = numbered(tmp_path / name, [name, "tea"])
        assert load_labelled(folder, info=info((teachers, "tea"))).labels.tolist() == [0, 1]
    both = numbered(tmp_path / "both", [written, decomposed])
    with pytest.raises(DatasetError, match="has two classes"):
        load_labelled(both, info=info((written, "tea")))


def test_a_long_mapping_is_shortened(tmp_path: Path) -> None:
    names = tuple(f"class {number:02}" for number in range(30))
    (note,) = load_labelled(numbered(tmp_path, names), info=info(names)).notes
    assert note.endswith("class 09 -> 9, … (30 in all)")


@pytest.mark.parametrize(
    "names", [("train", "val"), ("Training", "validation"), ("train2017", "test2017"), ("dev", "test")]
)
@pytest.mark.parametrize("class_names", [("0", "1"), NUMBERED, ("cat", "dog")])
def test_the_folder_above_the_splits_of_a_set_is_refused_with_those_to_give(
    tmp_path: Path, names: tuple[str, ...], class_names: tuple[str, ...]
) -> None:
    for name in names:
        numbered(tmp_path / name, ("cat", "dog", "ape")[: len(class_names)])
    with pytest.raises(DatasetError, match="and the class folders lie below") as refused:
        load_labelled(tmp_path, info=info(class_names))
    assert all(str(tmp_path / name) in refused.value.now for name in names)
    assert load_labelled(tmp_path / names[1], info=info(class_names)).labels.tolist() == list(range(len(class_names)))


@pytest.mark.parametrize("class_names", [NUMBERED, ANIMALS])
@pytest.mark.parametrize("between", ["images", "set/val", "data/images/test"])
def test_a_folder_too_high_is_refused_with_the_one_to_give(
    tmp_path: Path, class_names: tuple[str, ...], between: str
) -> None:
    numbered(tmp_path / between, ANIMALS)
    with pytest.raises(DatasetError) as refused:
        load_labelled(tmp_path, info=info(class_names))
    assert refused.value.now.split("; ")[0] == f"give {tmp_path / between}"


def test_where_either_of_two_levels_can_be_the_classes_names_are_asked_for(tmp_path: Path) -> None:
    for year in ("2019", "2020"):
        numbered(tmp_path / year, ("cat", "dog"))
    with pytest.raises(DatasetError, match="the class folders lie below") as refused:
        load_labelled(tmp_path, info=info(("0", "1")))
    assert refused.value.now.endswith("if 2019, 2020 are the classes, name them in teacher.class_names")
    assert load_labelled(tmp_path, info=info(("2020", "2019"))).labels.tolist() == [1, 1, 0, 0]
    assert load_labelled(tmp_path / "2019", info=info(("0", "1"))).labels.tolist() == [0, 1]


def test_splits_without_class_folders_are_no_classes_unless_they_are_called_so(tmp_path: Path) -> None:
    numbered(tmp_path, ("train", "test"))
    with pytest.raises(DatasetError, match="parts of a set and not classes"):
        load_labelled(tmp_path, info=info(("0", "1")))
    assert load_labelled(tmp_path, info=info(("train", "test"))).labels.tolist() == [1, 0]


def test_what_is_passed_over_is_counted(folder: Path) -> None:
    for name in ("a.heic", "b.HEIC", "notes.txt", "cat_001"):
        (folder / "cat" / name).write_text("no image that can be read")
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere.png")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._1.png"):
        (folder / "cat" / name).write_text("left behind")
    picture(folder / "beside.png")
    picture(folder / "dog" / "@eaDir" / "thumb.jpg")
    (folder / "__MACOSX").mkdir()
    data = load_labelled(folder, info=info())
    assert len(data.images) == 6
    assert data.notes[1:] == (
        "passed over 5 files: 2 .heic, 1 .txt, 1 broken link(s), 1 without suffix",
        "passed over 1 image beside the class folders",
    )


def test_a_link_to_a_folder_is_followed_and_one_to_nothing_refused(folder: Path, tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "more.png", 29)
    (folder / "ape" / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "ape" / "loop").symlink_to(folder / "ape")
    assert load_labelled(folder, info=info()).images[:2, 0, 0, 0].tolist() == [20, 29]
    (folder / "cow").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="where nothing is"):
        load_labelled(folder, info=info())


@pytest.mark.parametrize("suffix", ["gif", "jfif", "jp2", "JPE", "pbm", "avif"])
def test_further_formats_that_pillow_reads_are_images(tmp_path: Path, suffix: str) -> None:
    path = picture(tmp_path / "cat" / f"a.{suffix}", mode="1" if suffix == "pbm" else "RGB")
    data = load_labelled(tmp_path, info=info())
    with Image.open(path) as read:
        assert torch.equal(data.images[0], torch.from_numpy(np.array(read.convert("RGB"))).permute(2, 0, 1))


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "cat" / "a.gif", save_all=True, append_images=frames[1:])
    assert load_labelled(tmp_path, info=info()).images[0, :, 0, 0].tolist() == [255, 0, 0]


def test_the_orientation_in_exif_data_is_ignored_as_in_torchvision(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "cat").mkdir()
    Image.fromarray(pixels).save(tmp_path / "cat" / "a.png", exif=exif)
    ours = load_labelled(tmp_path, info=info()).images[0].permute(1, 2, 0).numpy()
    theirs, _ = ImageFolder(str(tmp_path))[0]
    assert np.array_equal(ours, pixels)
    assert np.array_equal(ours, np.array(theirs))


def test_what_is_done_to_images_is_counted(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "grey.png", 77, mode="L")
    picture(tmp_path / "cat" / "large.png", size=(8, 4))
    assert load_labelled(tmp_path, info=info()).notes[1:] == (
        "1 of 2 images are grey: each channel of the teacher's gets the same",
        "1 of 2 images are not 4 pixels wide and 4 high: scaled until they cover that, then centre-cropped",
    )
    assert load_labelled(tmp_path, info=info(shape=(1, 4, 8))).notes[1:] == (
        "1 of 2 images are in colour: the teacher gets them in grey",
        "1 of 2 images are not 8 pixels wide and 4 high: scaled until they cover that, then centre-cropped",
    )


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


@pytest.mark.parametrize("name", ["dogs", "DOG", "dog "])
def test_an_unknown_class_is_refused_with_the_nearest_name(folder: Path, name: str) -> None:
    picture(folder / name / "a.png")
    with pytest.raises(DatasetError, match=rf"'{name}' that the teacher does not know; did you mean 'dog'\?"):
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


def test_an_image_reaches_no_decoder_but_those_of_the_formats_that_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.init()
    wanted = {"PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF"}
    reached = set()
    for name, (factory, _) in Image.OPEN.items():

        def decode(*given: Any, name: str = name, factory: Any = factory) -> Any:
            reached.add(name)
            return factory(*given)

        monkeypatch.setitem(Image.OPEN, name, (decode, None))  # whatever a file begins with
    (folder / "cat" / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n")
    with pytest.raises(DatasetError, match=r"page\.png cannot be read") as refusal:
        load_labelled(folder, info=info())
    assert "PNG" in refusal.value.why
    assert reached == wanted & Image.OPEN.keys()


@pytest.mark.parametrize("side", [8_200, 10_000, 13_500])  # above ours, above what Pillow warns of, and refuses
def test_a_small_file_of_a_huge_image_is_refused_before_it_is_decoded(folder: Path, side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path = folder / "cat" / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(DatasetError, match=r"huge\.png has more than 67,108,864 pixels"):
        load_labelled(folder, info=info())


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_colours_that_have_no_grey_are_refused(folder: Path) -> None:
    Image.new("LAB", (4, 4)).save(folder / "cat" / "lab.tif")
    with pytest.raises(DatasetError, match=r"lab\.tif cannot be read as L"):
        load_labelled(folder, info=info(shape=(1, 4, 4)))


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


@pytest.mark.parametrize(
    ("metadata", "class_names", "told"),
    [
        (None, ANIMALS, "no class names in the file: labels are the logits' numbers: cat -> 0"),
        (NUMBERED, ANIMALS, "no class names in the file: labels are the logits' numbers: cat -> 0"),
        (None, NUMBERED, "no class names in the teacher: labels are the logits' numbers: 0 -> 0"),
        (("dog", "ape", "cat"), NUMBERED, "no class names in the teacher: labels are the logits' numbers: dog -> 0"),
        (ANIMALS, ANIMALS, "classes map to logits by name: cat -> 0"),
    ],
)
def test_packed_labels_are_logits_numbers_unless_both_sides_have_names(
    tmp_path: Path, metadata: tuple[str, ...] | None, class_names: tuple[str, ...], told: str
) -> None:
    path = packed_as(tmp_path / "p.safetensors", None if metadata is None else json.dumps(metadata))
    data = load_labelled(path, info=info(class_names))
    assert data.labels.tolist() == [2, 1]
    assert data.notes[0].startswith(told)


def packed_as(path: Path, class_names: str | None) -> Path:
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([2, 1])
    metadata = None if class_names is None else {"class_names": class_names}
    save_file({"images": images, "labels": labels}, path, metadata=metadata)
    return path


@pytest.mark.parametrize("class_names", ['"cat"', '{"cat": 0}', "[0, 1, 2]", "[null]"])
def test_packed_class_names_of_another_form_are_refused(tmp_path: Path, class_names: str) -> None:
    with pytest.raises(DatasetError, match=r"class_names .* in its metadata"):
        load_labelled(packed_as(tmp_path / "p.safetensors", class_names), info=info())


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
