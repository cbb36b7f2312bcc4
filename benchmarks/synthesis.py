"""How fast dreams are made: Resprout's engine against the paper's loop, on one machine, in one run.

    python benchmarks/synthesis.py                # writes benchmarks/results/synthesis-MACHINE.json
    python benchmarks/synthesis.py --profile      # where the engine's time goes

The baseline is the loop that arXiv 2511.20702 describes, written as research scripts are: float32, batches of
32, a teacher whose weights require gradients, hooks that compute each layer's mean and variance from the
whole activation, a .item() in each iteration. Both are measured in turns, several times, so that a noisy
neighbour hits both; the ratio of the medians is the result.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import machine
import torch
from torch import Tensor, nn

from resprout import artifacts, precision, statistics
from resprout.batchnorm import batch_norm_layers
from resprout.cost import model_cost
from resprout.files import write_atomically
from resprout.recipe import DeepInversionSection
from resprout.synthesis import synthesize
from resprout.types import BNStatistics, Teacher

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def paper_loop(teacher: Teacher, device: torch.device, iterations: int) -> Callable[[], int]:
    """The baseline; a call runs `iterations` iterations and returns images x iterations."""
    network = copy.deepcopy(teacher.network).to(device).requires_grad_(True).eval()
    layers = list(batch_norm_layers(network).values())
    inputs: dict[nn.Module, Tensor] = {}
    for layer in layers:
        layer.register_forward_hook(lambda module, arguments, output: inputs.__setitem__(module, arguments[0]))
    images = torch.randn(32, *teacher.info.input.shape, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([images], lr=0.05)

    def step() -> None:
        logits = network(images)
        distance = torch.zeros((), device=device)
        for layer in layers:
            mean = inputs[layer].mean((0, 2, 3))
            variance = inputs[layer].var((0, 2, 3), unbiased=False)
            distance = distance + (mean - layer.running_mean).norm() + (variance - layer.running_var).norm()
        entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        variation = (images[:, :, 1:] - images[:, :, :-1]).abs().sum() + (
            images[..., 1:] - images[..., :-1]
        ).abs().sum()
        loss = entropy + 10 * distance + 1e-5 * variation
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        images.data.clamp_(-3, 3)
        loss.item()

    def run() -> int:
        for _ in range(iterations):
            step()
        return 32 * iterations

    return run


def engine(
    teacher: Teacher, found: BNStatistics, device: torch.device, group_size: int, iterations: int
) -> Callable[[], int]:
    """Resprout's; a call synthesizes one group and returns images x iterations."""
    section = DeepInversionSection(num_images=group_size, num_held_out=0, group_size=group_size, iterations=iterations)

    def run() -> int:
        synthesize(teacher, found, section, seed=0, devices=[device])
        return group_size * iterations

    return run


def rate(run: Callable[[], int], device: torch.device) -> float:
    """Images x iterations per second of one call."""
    _wait(device)
    started = time.perf_counter()
    work = run()
    _wait(device)
    return work / (time.perf_counter() - started)


def matmul_ceiling(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """The best FLOP/s of a square matrix product seen in several tries."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(8):
        _wait(device)
        started = time.perf_counter()
        left @ right
        _wait(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(teacher: Teacher, device: torch.device, group_size: int, repeats: int, scale: int) -> dict[str, Any]:
    """Both in turns; medians, spreads, their ratio, and the share of the matrix-multiply ceiling."""
    found = statistics.extract(teacher)
    runs = {
        "paper": paper_loop(teacher, device, 10 * scale),
        "engine": engine(teacher, found, device, group_size, 10 * scale),
    }
    for run in runs.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            rates[name].append(rate(run, device))
    dtype = precision.resolve("auto", device)
    ceiling = matmul_ceiling(device, dtype, 2048 * scale if device.type == "cuda" else 2048)
    # one forward pass and one backward pass to the input, two operations per multiply-accumulate
    flops = 4 * model_cost(teacher.network, teacher.info.input.shape, ()).dense_macs
    medians = {name: median(values) for name, values in rates.items()}
    return {
        "images_iterations_per_second": {
            name: {"median": round(medians[name], 1), "min": round(min(found), 1), "max": round(max(found), 1)}
            for name, found in rates.items()
        },
        "ratio": round(medians["engine"] / medians["paper"], 2),
        "group_size": group_size,
        "dtype": str(dtype).removeprefix("torch."),
        "flops_per_image_iteration": flops,
        "matmul_ceiling_flops": round(ceiling),
        "share_of_ceiling": {name: round(flops * value / ceiling, 4) for name, value in medians.items()},
    }


def profile(teacher: Teacher, device: torch.device, group_size: int) -> dict[str, float]:
    """The share of the engine's own time per kind of operation, largest first."""
    run = engine(teacher, statistics.extract(teacher), device, group_size, 10)
    run()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        run()
    attribute = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    shares: dict[str, float] = {}
    for event in profiler.key_averages():
        kind = _kind(event.key)
        shares[kind] = shares.get(kind, 0.0) + getattr(event, attribute)
    total = sum(shares.values())
    return {kind: round(value / total, 3) for kind, value in sorted(shares.items(), key=lambda item: -item[1])}


def _kind(name: str) -> str:
    kinds = {
        "convolution": "convolutions",
        "batch_norm_update_stats": "BatchNorm statistics",
        "ChannelMoments": "BatchNorm statistics",
        "batch_norm": "BatchNorm, forward and backward",
        "clamp_min": "ReLU, forward and backward",
        "threshold": "ReLU, forward and backward",
        "add": "additions",
        "Adam": "Adam",
        "adam": "Adam",
    }
    return next((kind for part, kind in kinds.items() if part in name), "everything else")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, default=ROOT / "examples/resnet20-cifar10/teacher")
    parser.add_argument("--group-size", type=int, default=None, help="default: 128 on a CPU, 1024 on a GPU")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--name", default=None, help="what the result file is called; default: cpu or the GPU's name")
    parser.add_argument("--profile", action="store_true", help="print the profile alone, and write nothing")
    options = parser.parse_args()
    device = precision.best_device()
    teacher = artifacts.load_teacher(options.teacher)
    group_size = options.group_size or (1024 if device.type == "cuda" else 128)
    shares = profile(teacher, device, group_size)
    if options.profile:
        print(json.dumps(shares, indent=1))
        return
    result = measure(teacher, device, group_size, options.repeats, scale=4 if device.type == "cuda" else 1)
    document = {
        "name": teacher.info.architecture,
        "machine": machine.describe() | {"threads": torch.get_num_threads()},
        "repeats": options.repeats,
        **result,
        "profile": shares,
    }
    name = options.name or (torch.cuda.get_device_name(device).replace(" ", "-") if device.type == "cuda" else "cpu")
    with write_atomically(RESULTS / f"synthesis-{name}.json") as path:
        path.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
