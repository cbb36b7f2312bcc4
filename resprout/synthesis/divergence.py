"""Dreams that became no numbers are told at once, and not when the rest of them has been made."""

from __future__ import annotations

import math
from collections.abc import Mapping

from resprout.errors import DivergedError
from resprout.recipe import DeepInversionSection, PaperSynthesisSection


def refuse_diverged(
    figures: Mapping[str, float], where: str, section: DeepInversionSection | PaperSynthesisSection
) -> None:
    """Refuse losses that are not finite.

    Args:
        figures: losses by name, or what else must be finite.
        where: as in "group 2 of 9, iteration 20".
        section: what to change of it is told.

    Raises:
        DivergedError: with the figure, and what to change.
    """
    wrong = [f"{name} is {value}" for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise DivergedError(
            f"synthesis diverged in {where}: {', '.join(wrong)}",
            why="images that are not numbers teach nothing, and no further step mends them",
            now=" or ".join(_remedies(section)),
        )


def _remedies(section: DeepInversionSection | PaperSynthesisSection) -> list[str]:
    if isinstance(section, PaperSynthesisSection):
        return ["use synthesis.method: deep_inversion, whose steps can be made smaller"]
    smaller = f"lower synthesis.learning_rate, which is {section.learning_rate:g}"
    return [smaller, *([] if section.precision == "float32" else ["set synthesis.precision to float32"])]
