"""Which of timm's families work: the smallest network of each that has BatchNorm goes through all stages.

    python benchmarks/families.py                     # tries what has not been tried; docs/families.md is written anew
    python benchmarks/families.py --workers 12        # several at a time
    python benchmarks/families.py --again resnetv2    # networks whose names hold this, once more
    python benchmarks/families.py --table             # tries nothing

A family is a module of timm, a class in it, and what a name begins with before its first digit. Weights are random,
BatchNorm statistics those of smooth noise, images as small as the network takes. What is learnt is whether a network's
code goes through fetching, synthesis, pruning, recovery, evaluation, saving and loading, not how well it is compressed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import re
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from resprout import artifacts, evaluation, pruning, recovery, sources, statistics, synthesis
from resprout.batchnorm import batch_norm_layers
from resprout.errors import ResproutError
from resprout.files import write_atomically
from resprout.precision import frozen_copy
from resprout.pruning.candidates import maskable
from resprout.recipe import (
    DeepInversionSection,
    DistillationSection,
    InputSection,
    OptimalBrainSection,
    TeacherSection,
)
from resprout.sources.norms import other_norm_layers

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "families.json"
PAGE = ROOT / "docs" / "families.md"
MOST_PARAMETERS = 60_000_000
MOST_SECONDS = 900
MOST_WEIGHTS = 20_000
"""Larger layers stay out of the mask: the default criterion takes time with their size."""
SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 288)
WORKS = "works"
HEAD = """# Families

timm {timm} has {families} families of networks with BatchNorm. The smallest network of each, with random weights and
small images, goes through all stages: fetched as a weights file, dreamt from, pruned by the default criterion (its
layers of up to {weights:,} weights, for time), recovered for a step, evaluated, saved and loaded. {counts}.
Written by `python benchmarks/families.py`; a test tries some of them each time.

That its code goes through does not say how well a network is compressed: for that see [results.md](results.md). Dreams
rest on BatchNorm statistics alone. Where most layers that normalise keep none (LayerNorm, GroupNorm), little holds them
to the training data; fetching says so. Families without any BatchNorm (ViT, Mixer, ConvNeXt, …) are refused when they
are fetched.

| family | class | tried | parameters | images | BatchNorm among normalising layers | result |
|---|---|---|---:|---:|---:|---|"""


@dataclasses.dataclass
class Family:
    """One family, and what became of its smallest member.

    Args:
        size: of the images that it was tried with; 0 before.
        batch_norms, other_norms: how many layers normalise with running statistics, and without.
        seconds: how long all stages took.
        result: `works`, or at which stage it is refused, fails, or was left alone, and why; "" before it was tried.
    """

    module: str
    kind: str
    letters: str
    member: str
    parameters: int
    size: int = 0
    batch_norms: int = 0
    other_norms: int = 0
    seconds: float = 0.0
    result: str = ""


def families() -> list[Family]:
    """All that have BatchNorm, the smallest network of each, smallest first. It takes minutes: all are built."""
    smallest: dict[tuple[str, str, str], Family] = {}
    for name in timm.list_models():
        network = built(name)
        module, kind, letters = type(network).__module__.rpartition(".")[2], type(network).__name__, beginning(name)
        found = Family(module, kind, letters, name, sum(parameter.numel() for parameter in network.parameters()))
        other = smallest.get((module, kind, letters))
        if batch_norm_layers(network) and (other is None or found.parameters < other.parameters):
            smallest[module, kind, letters] = found
    return sorted(smallest.values(), key=lambda family: (family.parameters, family.member))


def beginning(name: str) -> str:
    """`resnet` of `resnet50d`, `tf_efficientnet_b` of `tf_efficientnet_b0`."""
    found = re.match("[a-z_]+", name)
    assert found is not None
    return found[0]


def built(name: str) -> nn.Module:
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, num_classes=4)
    except Exception:  # code that looks at values while it is built
        return timm.create_model(name, pretrained=False, num_classes=4)


def tried(family: Family) -> Family:
    """The family with what becomes of its member in all stages."""
    began = time.monotonic()
    torch.set_num_threads(1)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(0)
        network = timm.create_model(family.member, pretrained=False, num_classes=4)
        size = fitting_size(family.member, network)
        give_statistics(network, size)
        path = Path(folder) / "weights.safetensors"
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
        outcome = through_all_stages(family.member, size, path)
    return dataclasses.replace(
        family,
        size=size,
        batch_norms=len(batch_norm_layers(network)),
        other_norms=len(other_norm_layers(network)),
        seconds=round(time.monotonic() - began, 1),
        result=outcome,
    )


def fitting_size(name: str, network: nn.Module) -> int:
    """The smallest images that the network takes, as its configuration says or as trying shows."""
    configuration = timm.get_pretrained_cfg(name)
    own = configuration.input_size[-1] if configuration else SIZES[-1]
    for size in (own,) if configuration and configuration.fixed_input_size else SIZES:
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(2, 3, size, size))
        except Exception:  # whatever its code says about a size
            continue
        return size
    return own


def give_statistics(network: nn.Module, size: int) -> None:
    """Give BatchNorm layers the statistics of a pass of smooth noise, spread a little, as if they had been trained."""
    drawn = torch.Generator().manual_seed(0)
    layers = batch_norm_layers(network)
    for layer in layers.values():
        layer.momentum = None
        layer.reset_running_stats()
    with torch.no_grad():
        network.train()(smooth_noise(16, size, drawn))
        for layer in layers.values():
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean += 0.05 * torch.randn(layer.running_mean.shape, generator=drawn)
            layer.running_var.add_(1e-3).mul_(1 + 0.05 * torch.rand(layer.running_var.shape, generator=drawn))
    network.eval()


def smooth_noise(count: int, size: int, drawn: torch.Generator) -> Tensor:
    coarse = torch.randn(count, 3, size // 8, size // 8, generator=drawn)
    fine = 0.3 * torch.randn(count, 3, size, size, generator=drawn)
    return functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False) + fine


def through_all_stages(name: str, size: int, weights: Path) -> str:
    """`works`, or at which stage it ends and why."""
    stage = "fetching"
    stages = _stages(name, size, weights)
    try:
        while stage:
            stage = next(stages, "")
    except ResproutError as error:
        return f"refused at {stage}: {error.what}"
    except TimeoutError as error:
        return f"not tried: {error}, at {stage}"
    except Exception as error:  # what a table is for
        return f"fails at {stage}: {_in_a_line(error)}"
    return WORKS


def _stages(name: str, size: int, weights: Path) -> Iterator[str]:
    """Goes through them; yields each one's name before it begins."""
    spec = InputSection(shape=(3, size, size), mean=(0.5,) * 3, std=(0.25,) * 3)
    teacher = sources.fetch(TeacherSection(source=str(weights), architecture=f"timm:{name}", num_classes=4, input=spec))
    yield "statistics"
    found = statistics.extract(teacher)
    yield "synthesis"
    asked = DeepInversionSection(num_images=4, num_held_out=2, group_size=6, iterations=2, precision="float32")
    dreams = synthesis.synthesize(teacher, found, asked, seed=0)
    yield "pruning"
    sizes = sorted((weight.numel(), name) for name, weight in maskable(teacher.network).items())
    large = tuple(name for count, name in sizes[1:] if count > MOST_WEIGHTS)
    chosen = OptimalBrainSection(sparsity=0.5, num_images=4, exclude=large)
    student = pruning.prune(teacher, chosen, seed=0, dreams=dreams)
    yield "recovery"
    step = DistillationSection(epochs=1, batch_size=4, precision="float32")
    recovered = recovery.recover(teacher, student, dreams, step, seed=0).recovered
    yield "evaluation"
    evaluation.evaluate(teacher, {"pruned": student, "recovered": recovered}, dreams)
    yield "saving"
    artifacts.save_student(recovered, weights.parent / "student", kind="recovered")
    loaded = artifacts.load_student(weights.parent / "student")
    before, after = (frozen_copy(each.network, torch.float32, torch.device("cpu")) for each in (recovered, loaded))
    with torch.no_grad():
        images = dreams.images[:2].float()
        if not torch.equal(before(images), after(images)):
            raise AssertionError("other answers after saving and loading")


def table(found: list[Family]) -> str:
    """What docs/families.md says."""
    works = sum(family.result == WORKS for family in found)
    refused = sum(family.result.startswith("refused") for family in found)
    fails = [family for family in found if family.result.startswith("fails")]
    left = len(found) - works - refused - len(fails)
    counts = f"{works} work, {refused} are refused with a reason, {len(fails)} fail, {left} were not tried"
    lines = [HEAD.format(timm=timm.__version__, families=len(found), weights=MOST_WEIGHTS, counts=counts)]
    for family in sorted(found, key=lambda each: (each.module, each.kind, each.letters)):
        share = f"{family.batch_norms} of {family.batch_norms + family.other_norms}" if family.size else ""
        images = f"{family.size} x {family.size}" if family.size else ""
        result = family.result.replace("|", "\\|") or "not tried"
        name = family.letters.rstrip("_")
        lines.append(
            f"| {name} | {family.module}.{family.kind} | {family.member} | {family.parameters / 1e6:.1f} M "
            f"| {images} | {share} | {result} |"
        )
    return "\n".join([*lines, ""])


def read() -> list[Family]:
    """What has been tried, and what has not."""
    if not RESULT.exists():
        return families()
    return [Family(**fields) for fields in json.loads(RESULT.read_text())["families"]]


def keep(found: list[Family]) -> None:
    """Write the results and the page."""
    document: dict[str, Any] = {"timm": timm.__version__, "families": [dataclasses.asdict(each) for each in found]}
    with write_atomically(RESULT) as path:
        path.write_text(json.dumps(document, indent=1) + "\n")
    with write_atomically(PAGE) as path:
        path.write_text(table(found))


def tried_in_time(family: Family) -> Family:
    """As `tried`, unless the network is too large, takes too long, or cannot be prepared."""
    if family.parameters > MOST_PARAMETERS:
        return dataclasses.replace(family, result=f"not tried: {family.parameters / 1e6:.0f} M parameters")

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {MOST_SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(MOST_SECONDS)
    try:
        return tried(family)
    except Exception as error:  # whatever its code says before there is anything to try
        return dataclasses.replace(family, result=f"not tried: {_in_a_line(error)}")
    finally:
        signal.alarm(0)


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="networks tried at a time")
    parser.add_argument("--again", help="try those once more whose names hold this; '' for all")
    parser.add_argument("--table", action="store_true", help="try nothing")
    options = parser.parse_args()
    found = {family.member: family for family in read()}
    again = options.again
    waiting = [each for each in found.values() if not each.result or (again is not None and again in each.member)]
    keep(list(found.values()))
    if options.table:
        return
    with multiprocessing.get_context("spawn").Pool(options.workers, maxtasksperchild=1) as pool:
        for family in pool.imap_unordered(tried_in_time, waiting):
            found[family.member] = family
            keep(list(found.values()))
            print(f"{family.member}: {family.result}, {family.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
