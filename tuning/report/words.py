"""Writes the sentences of the report: what was compared and how, which arm is best, how certain
that is, and the limits of the result.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuning.report.stats import LEVEL, Estimate, cost, effect, estimate, finished, order_interval
from tuning.report.tables import Comparison, words

FAMILIES = {
    "ae": "an autoencoder",
    "vae": "a variational autoencoder",
    "gan": "a GAN",
    "classifier": "a classifier",
    "dqn": "a DQN agent",
}
SCHEDULERS = {
    "asha": (
        "Trials that fell behind were stopped early (ASHA): their figures are of a shorter "
        "training."
    ),
    "pbt": (
        "Trials copied better ones and changed their settings on the way (PBT): a trial's settings "
        "are its last ones."
    ),
}
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
    return (
        names[0]
        if len(names) == 1
        else f"{', '.join(names[:-1])} and {names[-1]}"
        if names
        else "none"
    )


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def title(comparison: Comparison) -> str:
    family = FAMILIES.get(comparison.family, comparison.family)
    name = words(comparison.study).capitalize() or "Sweep"
    return f"{name}: {family} on {comparison.data}" if family else name


def summary(
    comparison: Comparison, settings: Mapping[str, Any] | None = None
) -> list[tuple[str, str]]:
    """Return (heading, sentences) in reading order. `settings`: the sweep's own settings, as in its
    sweep.yaml.
    """
    if not comparison.rows:
        return [("Nothing yet", "No trial of this sweep has begun.")]
    parts = [("Unfinished", _unfinished(comparison)), ("What was compared", _compared(comparison))]
    parts.append(("By which protocol", _protocol(comparison, settings or {})))
    if len(comparison.arms) > 1:
        parts += [("What won", _won(comparison)), ("How sure", _sure(comparison))]
    else:
        parts.append(("What came of it", _single(comparison)))
    if comparison.of(phase="default") and comparison.of(phase="tuned"):
        parts.append(("What tuning did", _tuning(comparison)))
    if comparison.target is not None and comparison.judged != "search":
        parts.append(("Speed", _speed(comparison)))
    parts.append(("What went wrong", _wrong(comparison)))
    return [(heading, text) for heading, text in parts if text]


def _unfinished(comparison: Comparison) -> str:
    if not comparison.waiting:
        return ""
    has = "has" if comparison.waiting == 1 else "have"
    return (
        f"{plural(comparison.waiting, 'trial')} of this sweep {has} not ended. What follows may "
        "change; the test split stays "
        "closed until then."
    )


def _compared(comparison: Comparison) -> str:
    better = "lower" if comparison.mode == "min" else "higher"
    arms = (
        f"{len(comparison.arms)} arms ({', '.join(comparison.arms)})"
        if len(comparison.arms) > 1
        else "One arm"
    )
    family = FAMILIES.get(comparison.family, comparison.family)
    return (
        f"{arms}: {family} on {comparison.data}, judged by {words(comparison.metric)}, of which "
        f"{better} is better."
    )


def _protocol(comparison: Comparison, settings: Mapping[str, Any]) -> str:
    def counts(phase: str) -> list[int]:
        return sorted({len(comparison.of(arm, phase)) for arm in comparison.arms})

    def spread(values: Sequence[int]) -> str:
        return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"

    sentences = []
    if comparison.of(phase="default"):
        sentences.append(f"Untuned: each arm's own defaults, {spread(counts('default'))} seeds.")
    if comparison.of(phase="search"):
        how = {"search": settings.get("search")}.get("search") or ""
        each = "" if len(comparison.arms) == 1 else " of each arm's own space"
        searched = counts("search")
        trials = "trial" if searched == [1] else "trials"
        text = (
            f"Search: {spread(searched)} {words(str(how)) + ' ' if how else ''}{trials}{each}, one "
            "seed."
        )
        if len(searched) > 1 and not comparison.waiting:
            text += " The arms did not get equally many: the comparison is not even."
        sentences.append(text)
    if comparison.of(phase="tuned"):
        sentences.append(
            f"Tuned: the best setting of each search again, with {spread(counts('tuned'))} seeds "
            "that it had not."
        )
    missing = [phase for phase in ("default", "tuned") if not comparison.of(phase=phase)]
    if len(missing) == 1:
        sentences.append(f"There are no {PHASE_WORDS[missing[0]]} runs.")
    sentences.append(
        "Settings were chosen on the validation split; the test split was opened for this report "
        "alone, "
        "for untuned and tuned runs."
        if comparison.test_metric
        else "Settings were chosen on the validation split; there are no test figures."
    )
    sentences.append(SCHEDULERS.get(str(settings.get("scheduler")), ""))
    return " ".join(sentences).strip()


def _won(comparison: Comparison) -> str:
    winner = comparison.ranked[0]
    if comparison.judged == "search":
        best = comparison.chosen(winner)
        if best is None:
            ended = bool(finished(comparison.rows))
            return (
                "Nothing: no trial ended with a finite figure."
                if ended
                else "Nothing yet: no trial has ended."
            )
        count = len(finished(comparison.of(phase="search")))
        return (
            f"{winner}, by the best of {plural(count, 'search trial')}: {number(best.best)}. One "
            "lucky trial is enough for "
            "that; runs with fresh seeds would tell."
        )
    line = comparison.find(winner, comparison.judged)
    if line is None or not math.isfinite(line.best.median):
        return "Nothing: in every arm half of the runs or more ended without a finite figure."
    text = f"{winner}, {PHASE_WORDS[comparison.judged]}: median {between(comparison, line.best)}"
    text += f" over {plural(line.runs, 'seed')}"
    if line.test.count:
        text += f"; on the test split {between(comparison, line.test)}"
        tests = {
            arm: estimate(list(comparison.by_seed(arm, comparison.judged, test=True).values()))
            for arm in comparison.ranked
        }
        first = min((arm for arm in tests if tests[arm].count), key=lambda arm: tests[arm].median)
        if first != winner:
            text += f", where {first} is ahead with {between(comparison, tests[first])}"
    text += "." + _brackets(line.runs)
    if comparison.judged != "tuned" and comparison.of(phase="tuned"):
        text += (
            " Unfinished: tuned runs do not count before every arm has one that ended; "
            f"not yet: {listed(comparison.untuned)}."
        )
    return text


def _brackets(seeds: int) -> str:
    if seeds < 2:
        return ""
    left_out, coverage = order_interval(seeds)
    what = "an interval" if left_out else f"the range of {seeds} seeds"
    return f" In brackets: {what}, which holds the true median in {coverage:.0%} of cases."


def _sure(comparison: Comparison) -> str:
    if comparison.judged == "search":
        return ""
    winner, *others = comparison.ranked
    own = comparison.by_seed(winner, comparison.judged)
    if not any(map(math.isfinite, own.values())):
        return ""
    effects = {
        arm: found
        for arm in others
        if (found := effect(comparison.by_seed(arm, comparison.judged), own))
    }
    if not effects:
        return "Nothing stands beside it: no other arm has runs in this phase."
    second = next(iter(effects))
    found = effects[second]
    pairs = "of the seeds that both had" if found.paired else "of all pairs of their runs"
    equal = found.pairs - found.better - found.worse
    text = (
        f"Next comes {second}, which is behind in {found.worse} of {found.pairs} {pairs}"
        f"{f' and equal in {equal}' if equal else ''}, "
        f"with a median difference of {difference(comparison, found.difference)}. "
    )
    alike = [arm for arm, each in effects.items() if not each.apart]
    if alike:
        text += f"Cannot be told apart from the winner with these seeds: {listed(alike)}. "
    if len(alike) < len(effects):
        text += (
            "Behind it with an interval that leaves out 0: "
            f"{listed([arm for arm in effects if arm not in alike])}. "
        )
    fewest = min(effects.values(), key=lambda each: each.difference.count).difference
    if fewest.count < 2:
        text += "With one seed there is no interval."
    elif fewest.coverage < LEVEL:
        text += (
            f"With {fewest.count} seeds such an interval is the range of the seeds' differences, "
            "and holds the true one in "
            f"{fewest.coverage:.0%} of cases: of pairs of equal arms, 1 in "
            f"{1 / (1 - fewest.coverage):.0f} is told apart by "
            f"luck. For {LEVEL:.0%} it takes six seeds."
        )
    return text.strip()


def _single(comparison: Comparison) -> str:
    arm = comparison.arms[0]
    best, rows = comparison.chosen(arm), finished(comparison.of(arm, "search"))
    sentences = []
    if best is not None:
        middle = estimate([cost(row) for row in rows]).median
        half = (
            f"half of the trials were at {number(comparison.metric_of(middle))} or better"
            if math.isfinite(middle)
            else ""
        )
        sentences.append(
            f"Best of {plural(len(rows), 'search trial')}: {number(best.best)} ({best.trial})"
            + (f"; {half}." if half and len(rows) > 2 else ".")
        )
    for phase in ("default", "tuned"):
        line = comparison.find(arm, phase)
        if line is not None and line.runs:
            test = (
                f"; on the test split {between(comparison, line.test)}" if line.test.count else ""
            )
            sentences.append(
                f"{PHASE_WORDS[phase].capitalize()}: median {between(comparison, line.best)} over "
                f"{plural(line.runs, 'seed')}{test}."
            )
    if best is not None and not comparison.of(arm, "tuned"):
        sentences.append(
            "The best of many is flattered by luck: expect a little worse from the same settings."
        )
    return " ".join(sentences) or "No trial ended with a finite figure."


def _tuning(comparison: Comparison) -> str:
    gains, lost = {}, []
    for arm in comparison.ranked:
        found = effect(comparison.by_seed(arm, "tuned"), comparison.by_seed(arm, "default"))
        before, after = comparison.find(arm, "default"), comparison.find(arm, "tuned")
        if found is None or before is None or after is None:
            continue
        gains[arm] = (
            before.best.median - after.best.median
            if after.best.median != before.best.median
            else 0.0
        )
        if gains[arm] < 0:
            lost.append(arm)
    if not gains:
        return ""
    untuned = min(gains, key=lambda arm: comparison.find(arm, "default").best.median)  # type: ignore[union-attr]
    most = max(gains, key=lambda arm: gains[arm])
    text = ""
    if len(gains) > 1:
        line = comparison.find(untuned, "default")
        assert line is not None
        text = f"Untuned, {untuned} is best: {between(comparison, line.best)}. "
    before, after = comparison.find(most, "default"), comparison.find(most, "tuned")
    assert before is not None and after is not None
    if gains[most] > 0:
        others = len(comparison.arms) > 1
        gained = (
            f"Most gained {most}:" if len(gains) > 1 else f"{most} went" if others else "It went"
        )
        text += (
            f"{gained} from {between(comparison, before.best)} to "
            f"{between(comparison, after.best)}. "
        )
    if lost:
        text += f"Worse than untuned, since one seed chose the setting: {listed(lost)}."
    return text.strip()


def _speed(comparison: Comparison) -> str:
    assert comparison.target is not None
    lines = [line for line in comparison.lines if line.phase == comparison.judged and line.runs]
    reached, runs = sum(line.runs - line.missed for line in lines), sum(line.runs for line in lines)
    source = (
        "the median over arms of their untuned medians"
        if comparison.of(phase="default")
        else "the search's median"
    )
    text = (
        f"The target is {number(comparison.metric_of(comparison.target))}, {source}. "
        f"{reached} of {plural(runs, PHASE_WORDS[comparison.judged] + ' run')} reached it"
    )
    quick = min(lines, key=lambda line: line.steps.median, default=None)
    if quick is None or not math.isfinite(quick.steps.median):
        return text + "."
    return text + f"; soonest {quick.arm}, after {number(quick.steps.median)} steps (median)."


def _wrong(comparison: Comparison) -> str:
    def count(status: str) -> int:
        return sum(row.status == status for row in comparison.rows)

    parts = []
    if count("diverged"):
        arms = {
            arm: sum(row.status == "diverged" for row in comparison.of(arm))
            for arm in comparison.arms
        }
        where = ", ".join(
            f"{arm} {bad}" for arm, bad in sorted(arms.items(), key=lambda each: -each[1]) if bad
        )
        parts.append(
            f"{plural(count('diverged'), 'trial')} diverged"
            + (f" ({where})" if len(arms) > 1 else "")
        )
    if count("failed"):
        parts.append(f"{count('failed')} failed with an error (see the list of trials)")
    if count("running"):
        parts.append(f"{count('running')} had not ended when this was written, and count nowhere")
    if count("stopped"):
        parts.append(f"{count('stopped')} were stopped early")
    total = plural(len(comparison.rows), "trial")
    if not parts:
        return f"Nothing: all of {total} ended."
    return (
        f"Of {total}, {'; '.join(parts)}. Diverged and failed ones count as worse than any other."
    )


def limits(comparison: Comparison) -> list[str]:
    """List the limits of the results."""
    several = len(comparison.arms) > 1
    points = [
        f"Anything about other data than {comparison.data or 'these'}, other networks, or longer "
        "training."
    ]
    if several:
        points.append(
            "That the winner is better in general: rankings follow from the search spaces and the "
            "budget; a wider, a "
            "narrower or a shifted space may turn them round (arXiv:1910.05446)."
        )
        points.append(
            "Many arms at once: with ten comparisons one looks sure by luck sooner than a single "
            "one would. No correction "
            "was made."
        )
    if comparison.of(phase="search") and comparison.of(phase="tuned"):
        points.append(
            "The noise of the choice itself: each setting was chosen by one seed. The tuned runs "
            "show what came of that "
            "choice, not what another search would have chosen."
        )
    if comparison.judged == "search":
        points.append("How much of a trial's lead is luck: there are no runs with other seeds.")
    points.append(
        "CPU seconds are the trials' own process time on whatever machine ran them, looks at the "
        "validation split included; "
        "steps can be compared between machines, seconds cannot."
    )
    return points
