"""Synthesis: dream images from what the teacher remembers of its training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from resprout import __version__, precision
from resprout.checkpoints import Checkpoint, fingerprint
from resprout.devices import computed_on
from resprout.progress import Progress, Report, silent
from resprout.recipe import DeepInversionSection, PaperSynthesisSection
from resprout.sharding import too_many_shards
from resprout.synthesis.divergence import refuse_diverged
from resprout.synthesis.groups import Group, GroupResult, Keep, merge, notes_on, plan, run, shard, shard_of
from resprout.synthesis.methods import METHODS, Work
from resprout.synthesis.workers import Told, spread
from resprout.types import BNStatistics, DreamSet, DreamShard, Teacher


def synthesize(
    teacher: Teacher,
    statistics: BNStatistics,
    section: DeepInversionSection | PaperSynthesisSection,
    *,
    seed: int,
    report: Report = silent,
    checkpoint: Checkpoint | None = None,
    devices: Sequence[torch.device] = (),
) -> DreamSet:
    """Dream images for a teacher, balanced over its classes: `synthesize_shard` for the whole set.

    Returns:
        float16 images in normalised model-input space.
    """
    whole = synthesize_shard(
        teacher, statistics, section, seed=seed, report=report, checkpoint=checkpoint, devices=devices
    )
    return merge([whole])


def synthesize_shard(
    teacher: Teacher,
    statistics: BNStatistics,
    section: DeepInversionSection | PaperSynthesisSection,
    *,
    seed: int,
    shard_index: int = 0,
    num_shards: int = 1,
    report: Report = silent,
    checkpoint: Checkpoint | None = None,
    devices: Sequence[torch.device] = (),
) -> DreamShard:
    """One worker's share of the dreams; `merge` puts the shares together, and no image depends on their number.

    Args:
        teacher: is not changed.
        statistics: the teacher's running statistics, which the dreams are to match.
        section: which method, how many images, how long.
        seed: with the section and the inputs, determines every bit of the result on one kind of machine.
        shard_index, num_shards: which share of how many.
        report: is told how far the work is.
        checkpoint: finished groups are kept here and not made again.
        devices: of one kind, as `resprout.devices.devices` finds them; of several, each has a process of its own, and
            no image depends on their number. Default: the first GPU, or the CPU.

    Raises:
        RecipeError: this shard has no group.
        DeviceError: of several devices' processes, one ended before its work did.
        DivergedError: losses or images are no numbers any more; of the groups that are left, none is made.
    """
    all_groups = groups_of(section)
    groups = shard(all_groups, shard_index, num_shards)
    if not groups:
        raise too_many_shards(num_shards, len(all_groups))
    work = Work(teacher, statistics, section, seed)
    used = list(devices) or [precision.best_device()]
    made_in = (str(work.dtype(used[0])), computed_on(used), __version__)
    key = f"synthesis-{fingerprint(teacher.network, teacher.info, statistics, section, seed, made_in)}"
    tally = _Tally(groups, work.iterations, report)

    def make(missing: Sequence[Group], keep: Keep) -> None:
        def told(group: Group, done: int, losses: Mapping[str, float]) -> None:
            refuse_diverged(losses, f"group {group.index + 1} of {len(all_groups)}, iteration {done}", section)
            tally.told(group, done, losses)

        def kept(group: Group, result: GroupResult) -> None:
            last = {name: float(curve[-1]) for name, curve in result.curves.items()}
            images = {"images": float(result.images.float().abs().max())}
            refuse_diverged(last | images, f"group {group.index + 1} of {len(all_groups)}", section)
            tally.finished(group)
            keep(group, result)

        for group in groups:
            if group not in missing:
                tally.finished(group)
        tally.begin()
        workers = used[: len(missing)]
        if len(workers) > 1:
            spread(work, workers, missing, told, kept)
        elif workers:
            _one_by_one(work, workers[0], missing, told, kept)

    results = run(groups, make, checkpoint, key, work.like)
    return shard_of(groups, results, len(all_groups), teacher.info.num_classes)


def groups_of(section: DeepInversionSection | PaperSynthesisSection) -> list[Group]:
    """The groups that a whole set is made of."""
    return plan(section.num_images, section.num_held_out, section.group_size)


class _Tally:
    """Where a shard stands, whichever of its groups are being made."""

    def __init__(self, groups: Sequence[Group], iterations: int, report: Report) -> None:
        self._iterations = iterations
        self._done = dict.fromkeys((group.index for group in groups), 0)
        self._report = report

    def begin(self) -> None:
        """Nothing is done yet but what an earlier process left."""
        self._tell({}, resumed=True)

    def told(self, group: Group, done: int, losses: Mapping[str, float]) -> None:
        """So many iterations of a group are done, and these are their last losses."""
        self._done[group.index] = done
        self._tell(losses)

    def finished(self, group: Group) -> None:
        """All of them are, also those that nobody told of."""
        self._done[group.index] = self._iterations

    def _tell(self, losses: Mapping[str, float], resumed: bool = False) -> None:
        total = self._iterations * len(self._done)
        self._report(Progress("dreams", sum(self._done.values()), total, "iterations", losses, resumed))


def _one_by_one(work: Work, device: torch.device, groups: Sequence[Group], told: Told, keep: Keep) -> None:
    synthesizer = work.on(device)
    for group in groups:
        keep(group, synthesizer(group, partial(told, group)))


__all__ = ["METHODS", "merge", "notes_on", "synthesize", "synthesize_shard"]
