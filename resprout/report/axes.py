"""Axes of the report's charts: where a value sits, and which ticks to label."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

LOG_RATIO = 20
"""A larger quotient of largest and smallest value gets a logarithmic axis."""


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis, in percent of its length."""

    position: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic range of values, mapped to 0 ... 100 percent."""

    low: float
    high: float
    logarithmic: bool = False

    def position(self, value: float) -> float:
        """Where `value` sits, in percent from the low end."""
        if self.logarithmic:
            # differences of logarithms: the quotient of a subnormal number and a common one is infinite
            return 100 * (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, form: Callable[[float], str], count: int = 4, *, whole: bool = False) -> tuple[Tick, ...]:
        """About `count` round values within the range; `whole`: integers only."""
        if self.logarithmic:
            values = _log_ticks(self.low, self.high)
        else:
            locator = MaxNLocator(count, integer=whole, steps=[1, 2, 2.5, 5, 10])
            values = [float(value) for value in locator.tick_values(self.low, self.high)]
        ticks = [Tick(round(self.position(value), 2), form(value)) for value in values]
        return tuple(tick for tick in ticks if 0 <= tick.position <= 100)


def axis_for(values: Sequence[float], *, floor: float | None = None, ceiling: float | None = None) -> Axis:
    """The axis that shows all of some finite values: logarithmic where they span much and are all above 0.

    Args:
        values: at least one.
        floor, ceiling: bounds that the values cannot pass (a share has 0 and 1); a linear axis stays within them.
    """
    low, high = min(values), max(values)
    if floor is None and low >= sys.float_info.min and high / low > LOG_RATIO:
        return Axis(low / 1.15, high * 1.15, logarithmic=True)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    return Axis(low if floor is None else max(floor, low), high if ceiling is None else min(ceiling, high))


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    step = math.ceil(len(decades) / 6)
    leads = (1, 2, 5) if math.log10(high) - math.log10(low) < 2 else (1,)
    return [lead * 10.0**decade for decade in decades[::step] for lead in leads]
