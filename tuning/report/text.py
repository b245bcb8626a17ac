"""Formats numbers, estimates and lists for the report's sentences and tables."""

import math
from collections.abc import Iterable, Sequence

from tuning.report.comparison import Comparison
from tuning.report.stats import Estimate

PHASE_WORDS = {"default": "untuned", "tuned": "tuned", "search": "search"}


def number(value: float | None) -> str:
    """Format four significant digits; ∞ for none, – for unknown."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    value = value + 0.0  # changes −0 to 0
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3e}".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}").replace("-", "−")


def between(comparison: Comparison, found: Estimate) -> str:
    """Format an estimate of costs as "median (low to high)" of the metric."""
    if not found.count:
        return "–"
    text = number(comparison.metric_of(found.median))
    if found.count == 1:
        return text
    low, high = comparison.interval(found)
    return f"{text} ({number(low)} to {number(high)})"


def difference(comparison: Comparison, found: Estimate) -> str:
    """Format a difference of costs as "2.1 (−1 to 3)" of the metric, with three digits."""

    def three(value: float) -> str:
        return number(float(f"{value:.3g}"))

    text = three(comparison.metric_of(found.median))
    if found.count < 2:
        return text
    low, high = comparison.interval(found)
    return f"{text} ({three(low)} to {three(high)})"


def covered(found: Iterable[Estimate]) -> str:
    """State the probability that intervals contain the true value, for a table's head: "94%", "88%
    or more"; empty if there are no intervals.
    """
    shares = sorted({each.coverage for each in found if each.count > 1})
    return f"{shares[0]:.0%}{' or more' if len(shares) > 1 else ''}" if shares else ""


def listed(names: Sequence[str]) -> str:
    """Join names for a sentence: "a, b and c"; "none" for no names."""
    return (
        names[0]
        if len(names) == 1
        else f"{', '.join(names[:-1])} and {names[-1]}"
        if names
        else "none"
    )


def plural(count: int, one: str, many: str = "") -> str:
    """Format a count with its noun: "1 trial", "2 trials"."""
    return f"{count} {one if count == 1 else many or one + 's'}"
