"""A stage computes on as many GPUs as it asked for, or says at once why it cannot. No GPU is needed here."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch

from resprout.devices import computed_on, devices
from resprout.errors import DeviceError

CPU = torch.device("cpu")
TOO_OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
    "(Triggered internally at ../c10/cuda/CUDAFunctions.cpp:109.)"
)
SeesGpus = Callable[..., None]


@pytest.fixture
def sees(monkeypatch: pytest.MonkeyPatch) -> SeesGpus:
    """What torch says: how many GPUs there are, what it warns of, and which CUDA it was built for."""

    def pretend(count: int, *, warning: str = "", built_for: str | None = "13.0") -> None:
        def is_available() -> bool:
            if warning:
                warnings.warn(warning, stacklevel=1)
            return count > 0

        monkeypatch.setattr(torch.cuda, "is_available", is_available)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.version, "cuda", built_for)

    return pretend


@pytest.mark.parametrize("wanted", [1, 2, 4])
def test_as_many_gpus_as_were_asked_for_are_used_and_no_more(sees: SeesGpus, wanted: int) -> None:
    sees(4)
    assert devices(wanted) == [torch.device("cuda", index) for index in range(wanted)]


def test_who_asked_for_none_gets_the_first_gpu_or_the_processor(sees: SeesGpus) -> None:
    sees(2)
    assert devices(0) == [torch.device("cuda", 0)]
    sees(0)
    assert devices(0) == [CPU]


@pytest.mark.parametrize(
    ("wanted", "seen", "said"),
    [(1, 0, "1 GPU and sees none"), (2, 1, "2 GPUs and sees 1"), (8, 7, "8 GPUs and sees 7")],
)
def test_fewer_gpus_than_asked_for_are_an_error_that_says_what_to_check(
    sees: SeesGpus, wanted: int, seen: int, said: str
) -> None:
    sees(seen)
    with pytest.raises(DeviceError, match=f"^this stage asked for {said}\n") as refused:
        devices(wanted)
    for word in ("placement.gpu_image", "runtime class", "nvidia-smi", "placement.gpus to 0"):
        assert word in refused.value.now


def test_the_reason_is_the_one_that_torch_knows(sees: SeesGpus) -> None:
    def reason(count: int, wanted: int, **told: str | None) -> str:
        sees(count, **told)
        with pytest.raises(DeviceError) as refused:
            devices(wanted)
        return refused.value.why

    assert "built without CUDA" in reason(0, 1, built_for=None)
    assert reason(0, 1, warning=TOO_OLD).endswith("is too old (found version 11040).")
    assert "device plugin" in reason(0, 1)
    assert "fewer of the node's GPUs" in reason(1, 2)


def test_a_manifest_names_kinds_of_devices_and_versions_and_never_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {0: "NVIDIA L4", 1: "NVIDIA L4", 2: "NVIDIA A10"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: kinds[device.index])
    gpus = [torch.device("cuda", index) for index in kinds]
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert computed_on([CPU]) == computed_on([CPU, CPU]) == "cpu (torch 2.14.1)"
    l4, a10 = (f"NVIDIA {name} (torch 2.14.1, CUDA 13.0)" for name in ("L4", "A10"))
    assert computed_on(gpus[:1]) == computed_on(gpus[:2]) == l4
    assert computed_on(gpus) == computed_on(gpus[::-1]) == f"{a10}, {l4}"
