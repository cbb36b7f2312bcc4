from __future__ import annotations

import io
import json
import struct
import zlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from resprout.datasets import load_labelled
from resprout.datasets.pictures import FORMATS, Change, fit, read_image
from resprout.types import InputSpec, ModelInfo
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import changed_json, damaged

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of much that is refused
COLOUR = InputSpec((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
GREY = InputSpec((1, 8, 8), (0.5,), (0.5,))
TENSORS = {"images": torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "labels": torch.tensor([0, 1, 0, 1])}


def written(kind: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((16, 16), 50).convert(mode).save(file, kind, **options)
    return file.getvalue()


PNG = [written("PNG", mode) for mode in ("RGB", "P", "LA", "I;16", "1")]
OTHERS = [written(kind) for kind in FORMATS if kind in Image.SAVE and kind != "PNG"]
OTHERS += [written("TIFF", compression="tiff_lzw"), written("TIFF", "CMYK"), written("GIF", "P")]


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """A PNG of damaged chunks whose lengths and checksums are right."""
    content, made = draw(st.sampled_from(PNG)), bytearray(b"\x89PNG\r\n\x1a\n")
    at = len(made)
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length
        if not draw(st.integers(0, 2)):
            data = draw(damaged(data)) if data else data
            kind = draw(st.sampled_from([kind, kind, b"tRNS", b"PLTE", b"zTXt", b"iCCP", b"eXIf", b"acTL", b"fcTL"]))
        made += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return bytes(made)


def test_any_file_is_an_image_or_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    path = tmp_path / "cat.png"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        image = read_image(path)
        for spec in (COLOUR, GREY):
            fit(image, spec, "cat.png", Counter[Change]())

    fuzz(chunks() | st.sampled_from([*PNG, *OTHERS]).flatmap(damaged), read, memory=1 << 30)


def test_any_file_is_a_packed_set_or_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    infos = [ModelInfo("any", 2, spec, names) for spec in (COLOUR, GREY) for names in (("0", "1"), ("cat", "dog"))]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        for info in infos:
            load_labelled(path, info=info)

    valid = save(TENSORS, {"class_names": json.dumps(["cat", "dog"])})
    header = json.loads(valid[8 : 8 + int.from_bytes(valid[:8], "little")])
    tail = valid[8 + int.from_bytes(valid[:8], "little") :]
    names = changed_json(["cat", "dog"]).map(lambda text: save(TENSORS, {"class_names": text.decode(errors="replace")}))
    headers = changed_json(header).map(lambda text: len(text).to_bytes(8, "little") + text + tail)
    fuzz(damaged(valid) | headers | names, read)
