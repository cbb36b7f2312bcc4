"""How much a weights file may say in few bytes: as much as it holds.

A file of some kB can stand for more memory than a machine has: compressed, by tensors that show one number many times,
or by lists that hold each other.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable
from typing import BinaryIO

import torch
from torch import Tensor

from resprout.errors import UnsupportedModelError

MAX_VALUES = 1_000_000
"""Mappings, lists, tensors and numbers in one file: an optimiser's state of the largest networks has ten thousand."""
MAX_GROWTH = 32
"""How much larger tensors may be than what is stored of them: weights of which one in a hundred is left, sparse, are 20
times as large once they are dense; tied weights and several names for one tensor add less."""
_SPARE = 1 << 12  # bytes that a sparse tensor may have whatever is stored of it: a bias of zeros
_PLAIN = "save plain tensors: {name: tensor.to_dense().clone() for name, tensor in model.state_dict().items()}"


def check_zip(file: BinaryIO, size: int, name: str) -> None:
    """Refuse a zip file whose members are larger than itself.

    Args:
        file: the whole of it; is left at its beginning.
        size: bytes.
        name: what messages call it.

    Raises:
        UnsupportedModelError: a member is compressed, or members share bytes, neither of which torch writes.
        zipfile.BadZipFile: it is none, or one that can be read in two ways.
        pickle.UnpicklingError: it is TorchScript, which is code.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if archive.comment:  # in which another directory may stand
            raise zipfile.BadZipFile("it has a comment, which torch never writes")
    file.seek(0)
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise pickle.UnpicklingError("TorchScript")
    compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if compressed or sum(max(member.file_size, member.compress_size) for member in members) > size:
        raise UnsupportedModelError(
            f"teacher '{name}' is compressed" if compressed else f"teacher '{name}' holds the same bytes several times",
            why="torch never writes such a file, and some kB of it can take more memory than there is",
            now="save it anew with torch.save or safetensors",
        )


def check_dense(tensor: Tensor, origin: str) -> None:
    """Refuse a tensor that would be much larger than what is stored of it once each number is written out.

    Raises:
        UnsupportedModelError: with the tensor's name.
    """
    if tensor.is_meta:  # stores nothing, and takes nothing
        return
    size, stored = tensor.numel() * tensor.element_size(), stored_bytes(tensor)
    if size > (stored if tensor.layout == torch.strided else MAX_GROWTH * stored + _SPARE):
        raise UnsupportedModelError(
            f"{origin} is {list(tensor.shape)}, {size:,} bytes, of which the file stores {stored:,}",
            why="a small file could take more memory than there is",
            now=_PLAIN,
        )


def check_whole(tensors: Iterable[Tensor], size: int, name: str) -> None:
    """Refuse tensors that are much larger together than the file that they are from.

    Raises:
        UnsupportedModelError: they are.
    """
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors if not tensor.is_meta)
    if total > MAX_GROWTH * size:
        raise UnsupportedModelError(
            f"the tensors of '{name}' are {total:,} bytes, in a file of {size:,}",
            why="a small file could take more memory than there is",
            now=_PLAIN,
        )


def stored_bytes(tensor: Tensor) -> int:
    """What is stored of a tensor of any layout."""
    if tensor.layout == torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        return tensor.untyped_storage().nbytes()
    return sum(min(part.numel() * part.element_size(), part.untyped_storage().nbytes()) for part in parts)
