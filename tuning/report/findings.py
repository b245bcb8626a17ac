"""Writes the report's sentences on the results: the best arm, how certain that is, what tuning
changed, and how fast the arms were.
"""

import math

from tuning.report.comparison import Comparison
from tuning.report.stats import LEVEL, cost, effect, estimate, finished, order_interval
from tuning.report.text import PHASE_WORDS, between, difference, listed, number, plural


def best_arm(comparison: Comparison) -> str:
    """Name the best arm of several, with its median and interval."""
    if comparison.ranking_phase == "search":
        return _best_by_search(comparison)
    winner = comparison.ranked[0]
    line = comparison.find(winner, comparison.ranking_phase)
    if line is None or not math.isfinite(line.best.median):
        return "None: in every arm, half of the runs or more ended without a finite figure."
    text = f"{winner}, {PHASE_WORDS[comparison.ranking_phase]}: median "
    text += f"{between(comparison, line.best)} over {plural(line.runs, 'seed')}"
    # The test split may rank the arms in another order.
    if line.test.count:
        text += f"; on the test split {between(comparison, line.test)}"
        tests = {
            arm: estimate(
                list(comparison.by_seed(arm, comparison.ranking_phase, test=True).values())
            )
            for arm in comparison.ranked
        }
        first = min((arm for arm in tests if tests[arm].count), key=lambda arm: tests[arm].median)
        if first != winner:
            text += f", where {first} is better with {between(comparison, tests[first])}"
    text += "." + _interval_note(line.runs)
    if comparison.ranking_phase != "tuned" and comparison.select(phase="tuned"):
        text += (
            " Unfinished: the tuned runs count when every arm has a tuned run that ended; arms "
            f"without one: {listed(comparison.untuned)}."
        )
    return text


def _best_by_search(comparison: Comparison) -> str:
    winner = comparison.ranked[0]
    best = comparison.chosen(winner)
    if best is None:
        ended = bool(finished(comparison.rows))
        return (
            "None: no trial ended with a finite figure."
            if ended
            else "None yet: no trial has ended."
        )
    count = len(finished(comparison.select(phase="search")))
    return (
        f"{winner}, by the best of {plural(count, 'search trial')}: {number(best.best)}. A single "
        "lucky trial can cause this lead; runs with new seeds would show whether it is real."
    )


def _interval_note(seeds: int) -> str:
    if seeds < 2:
        return ""
    left_out, coverage = order_interval(seeds)
    what = "an interval" if left_out else f"the range of {seeds} seeds"
    return (
        f" The brackets show {what}, which contains the true median with a probability of "
        f"{coverage:.0%}."
    )


def certainty(comparison: Comparison) -> str:
    """Compare the best arm with each other arm; empty if there are no runs with several seeds."""
    if comparison.ranking_phase == "search":
        return ""
    winner, *others = comparison.ranked
    own = comparison.by_seed(winner, comparison.ranking_phase)
    if not any(map(math.isfinite, own.values())):
        return ""
    effects = {
        arm: found
        for arm in others
        if (found := effect(comparison.by_seed(arm, comparison.ranking_phase), own))
    }
    if not effects:
        return "No other arm has runs in this phase."
    # The second-best arm.
    second = next(iter(effects))
    found = effects[second]
    pairs = "common seeds" if found.paired else "pairs of their runs"
    equal = found.pairs - found.better - found.worse
    text = (
        f"The second-best arm is {second}. It is worse in {found.worse} of {found.pairs} {pairs}"
        f"{f' and equal in {equal}' if equal else ''}, with a median difference of "
        f"{difference(comparison, found.difference)}. "
    )
    # The arms whose interval contains 0, and the others.
    alike = [arm for arm, each in effects.items() if not each.excludes_zero]
    if alike:
        text += f"These seeds do not distinguish the best arm from: {listed(alike)}. "
    if len(alike) < len(effects):
        text += (
            "Worse, with an interval that excludes 0: "
            f"{listed([arm for arm in effects if arm not in alike])}. "
        )
    # What the number of seeds allows.
    fewest = min(effects.values(), key=lambda each: each.difference.count).difference
    if fewest.count < 2:
        text += "With one seed there is no interval."
    elif fewest.coverage < LEVEL:
        text += (
            f"With {fewest.count} seeds, such an interval is the range of the differences. It "
            f"contains the true difference with a probability of {fewest.coverage:.0%}, so that "
            f"1 in {1 / (1 - fewest.coverage):.0f} pairs of equal arms seems different by chance. "
            f"{LEVEL:.0%} needs six seeds."
        )
    return text.strip()


def search_result(comparison: Comparison) -> str:
    """Describe the result of a sweep with one arm."""
    arm = comparison.arms[0]
    best, rows = comparison.chosen(arm), finished(comparison.select(arm, "search"))
    sentences = []
    if best is not None:
        middle = estimate([cost(row) for row in rows]).median
        half = (
            f"half of the trials reached {number(comparison.metric_of(middle))} or better"
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
    if best is not None and not comparison.select(arm, "tuned"):
        sentences.append(
            "The best of many trials is partly chance: expect a slightly worse result from the "
            "same settings."
        )
    return " ".join(sentences) or "No trial ended with a finite figure."


def effect_of_tuning(comparison: Comparison) -> str:
    """Compare the tuned runs of each arm with its untuned runs."""
    gains, worse = {}, []
    for arm in comparison.ranked:
        found = effect(comparison.by_seed(arm, "tuned"), comparison.by_seed(arm, "default"))
        before, after = comparison.find(arm, "default"), comparison.find(arm, "tuned")
        if found is None or before is None or after is None:
            continue
        # Equal medians may both be ∞, whose difference is NaN.
        equal = after.best.median == before.best.median
        gains[arm] = 0.0 if equal else before.best.median - after.best.median
        if gains[arm] < 0:
            worse.append(arm)
    if not gains:
        return ""
    untuned = min(gains, key=lambda arm: comparison.find(arm, "default").best.median)  # type: ignore[union-attr]
    most = max(gains, key=lambda arm: gains[arm])
    text = ""
    if len(gains) > 1:
        line = comparison.find(untuned, "default")
        assert line is not None
        text = f"The best untuned arm is {untuned}: {between(comparison, line.best)}. "
    before, after = comparison.find(most, "default"), comparison.find(most, "tuned")
    assert before is not None and after is not None
    if gains[most] > 0:
        what = most if len(comparison.arms) > 1 else "the result"
        text += f"Tuning improved {what}{' most' if len(gains) > 1 else ''}, from "
        text += f"{between(comparison, before.best)} to {between(comparison, after.best)}. "
    if worse:
        text += f"Worse than untuned, because one seed chose the setting: {listed(worse)}."
    return text.strip()


def speed(comparison: Comparison) -> str:
    """Say how many runs reached the target, and which arm reached the target first."""
    assert comparison.target is not None
    lines = [
        line for line in comparison.lines if line.phase == comparison.ranking_phase and line.runs
    ]
    reached, runs = sum(line.runs - line.missed for line in lines), sum(line.runs for line in lines)
    source = (
        "the median over arms of their untuned medians"
        if comparison.select(phase="default")
        else "the median of the search"
    )
    text = (
        f"The target is {number(comparison.metric_of(comparison.target))}, {source}. "
        f"{reached} of {plural(runs, PHASE_WORDS[comparison.ranking_phase] + ' run')} reached the "
        "target"
    )
    fastest = min(lines, key=lambda line: line.steps.median, default=None)
    if fastest is None or not math.isfinite(fastest.steps.median):
        return text + "."
    return (
        text + f"; the fastest arm is {fastest.arm}, after {number(fastest.steps.median)} steps "
        "(median)."
    )
