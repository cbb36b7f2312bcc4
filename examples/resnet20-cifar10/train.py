"""Train a CIFAR-10 teacher: the script that made this folder's ResNet-20, and that trains other networks as they are.

    python examples/resnet20-cifar10/train.py --data data/cifar10 --out examples/resnet20-cifar10/teacher

Every epoch ends with a checkpoint, kept outside the repository; the same command goes on from it after an
interruption and ends with the same weights. What makes training cheap enough for two CPU cores:

- the first half of the epochs on images shrunk to 24x24 (progressive resizing);
- samples that are already learnt are visited half as often (see batches.py), except in the last eighth of the epochs;
- bfloat16 autocast, channels_last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from batches import prepare, resize
from cifar10 import CLASS_NAMES, DEFAULT_FOLDER, INPUT, load
from torch import nn
from training import Settings, build, load_checkpoint, save_checkpoint, start, train_epoch

from resprout.artifacts import save_teacher
from resprout.errors import ArtifactError, ResproutError
from resprout.types import LabelledImages, ModelInfo, Teacher

HERE = Path(__file__).resolve().parent


def train(
    settings: Settings,
    data: Mapping[str, LabelledImages],
    checkpoint: Path,
    *,
    device: torch.device,
    evaluate_every: int,
) -> nn.Module:
    """Train to the end, from the checkpoint where there is one; a line per epoch.

    Returns:
        The trained network.
    """
    training = start(settings, len(data["train"].images), device)
    if checkpoint.exists():
        load_checkpoint(training, settings, checkpoint)
    padded, labels = prepare(data["train"].images, INPUT).to(device), data["train"].labels.to(device)
    while training.epoch < settings.epochs:
        began = time.monotonic()
        size = settings.size(training.epoch)
        loss, accuracy = train_epoch(training, padded, labels, settings)
        save_checkpoint(training, settings, checkpoint)
        line = f"epoch {training.epoch}/{settings.epochs}  {size}x{size}  loss {loss:.4f}  train {accuracy:.2%}"
        if training.epoch % evaluate_every == 0:
            line += f"  test {evaluate(training.network, data['test'], size=size):.2%}"
        print(f"{line}  {time.monotonic() - began:.0f} s", flush=True)
    return training.network


@torch.no_grad()
def evaluate(network: nn.Module, data: LabelledImages, *, size: int = 32, batch_size: int = 500) -> float:
    """Top-1 accuracy in float32, in [0, 1], on images at `size` x `size`."""
    network.eval()
    device = next(network.parameters()).device
    correct = 0
    for first in range(0, len(data.images), batch_size):
        batch = slice(first, first + batch_size)
        inputs = INPUT.normalise(data.images[batch].to(device).float() / 255)
        logits = network(resize(inputs.contiguous(memory_format=torch.channels_last), size))
        correct += int((logits.argmax(1).cpu() == data.labels[batch]).sum())
    return correct / len(data.images)


def export(network: nn.Module, settings: Settings, epochs: int, test: LabelledImages, directory: Path) -> float:
    """Save a trained network as a teacher folder. Returns its test accuracy in float32, in [0, 1]."""
    accuracy = evaluate(network, test)
    info = ModelInfo(settings.architecture, len(CLASS_NAMES), INPUT, CLASS_NAMES, arguments=settings.arguments)
    source = f"examples/resnet20-cifar10/train.py, CIFAR-10, {epochs} epochs, seed {settings.seed}"
    save_teacher(Teacher(info, network.cpu().eval().requires_grad_(False), source=source), directory)
    print(f"wrote {directory}: {accuracy:.2%} of {len(test.images):,} test images, float32", flush=True)
    return accuracy


def load_network(settings: Settings, checkpoint: Path) -> tuple[nn.Module, int]:
    """The network of a checkpoint, finished or not, and how many epochs it has seen."""
    if not checkpoint.exists():
        raise ArtifactError(f"there is no checkpoint {checkpoint}", now="give the path that training was kept at")
    network = build(settings)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network.load_state_dict(state["network"])
    return network, int(state["epoch"])


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Settings]:
    defaults = Settings()
    parser = argparse.ArgumentParser(description="Train a CIFAR-10 teacher.")
    parser.add_argument("--data", type=Path, default=DEFAULT_FOLDER, help="%(default)s")
    parser.add_argument("--out", type=Path, default=HERE / "teacher", help="the teacher's folder (%(default)s)")
    parser.add_argument("--architecture", default=defaults.architecture, help="a name Resprout knows (%(default)s)")
    parser.add_argument("--arguments", type=json.loads, default={}, help="the architecture's arguments, as JSON")
    parser.add_argument("--epochs", type=int, default=defaults.epochs, help="%(default)s")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="%(default)s")
    parser.add_argument(
        "--small-share", type=float, default=defaults.small_share, help="of the epochs at 24x24 (%(default)s)"
    )
    parser.add_argument("--checkpoint", type=Path, help="where training is kept (~/.cache/resprout/ARCHITECTURE.pt)")
    parser.add_argument(
        "--export-only", type=Path, metavar="CHECKPOINT", help="train nothing: turn this checkpoint into --out"
    )
    parser.add_argument("--evaluate-every", type=int, default=10, help="epochs between test accuracies (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (torch's default)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="%(default)s")
    options = parser.parse_args(arguments)
    settings = Settings(
        options.architecture,
        options.arguments,
        options.epochs,
        seed=options.seed,
        small_share=options.small_share,
    )
    return options, settings


def main(arguments: Sequence[str] | None = None) -> int:
    options, settings = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        data = {part: load(options.data, part) for part in ("train", "test")}
        if options.export_only:
            network, epochs = load_network(settings, options.export_only)
        else:
            checkpoint = options.checkpoint or Path.home() / ".cache" / "resprout" / f"{settings.architecture}.pt"
            epochs = settings.epochs
            network = train(
                settings, data, checkpoint, device=torch.device(options.device), evaluate_every=options.evaluate_every
            )
        export(network, settings, epochs, data["test"], options.out)
    except ResproutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
