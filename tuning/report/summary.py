"""Writes the report's sentences on what was compared, by which protocol, and with which limits.

`tuning.report.findings` writes the sentences on the results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tuning.report.comparison import Comparison, readable
from tuning.report.findings import (
    best_arm,
    certainty,
    effect_of_tuning,
    search_result,
    speed,
)
from tuning.report.text import PHASE_WORDS, plural

FAMILIES = {
    "ae": "an autoencoder",
    "vae": "a variational autoencoder",
    "gan": "a GAN",
    "pix2pix": "a pix2pix",
    "cyclegan": "a CycleGAN",
    "classifier": "a classifier",
    "optimizer": "a learned optimizer",
    "dqn": "a DQN agent",
}
SCHEDULERS = {
    "asha": (
        "Trials with worse results were stopped early (ASHA): their figures come from a shorter "
        "training."
    ),
    "pbt": (
        "Trials became copies of better trials and changed their settings during training (PBT): "
        "a trial's settings are its last ones."
    ),
}


def title(comparison: Comparison) -> str:
    """Return the title of the report, e.g. "Optimizers: a GAN on digits"."""
    family = FAMILIES.get(comparison.family, comparison.family)
    name = readable(comparison.study).capitalize() or "Sweep"
    return f"{name}: {family} on {comparison.data}" if family else name


def summary(
    comparison: Comparison, settings: Mapping[str, Any] | None = None
) -> list[tuple[str, str]]:
    """Return (heading, sentences) in reading order.

    `settings`: the sweep's own settings, as in its sweep.yaml.
    """
    if not comparison.rows:
        return [("No results yet", "No trial of this sweep has begun.")]
    # The protocol.
    parts = [("Unfinished", _unfinished(comparison)), ("What was compared", _compared(comparison))]
    parts.append(("Protocol", _protocol(comparison, settings or {})))
    # The results. A sweep with one arm has no best arm.
    if len(comparison.arms) > 1:
        parts += [("Best arm", best_arm(comparison)), ("Certainty", certainty(comparison))]
    else:
        parts.append(("Result", search_result(comparison)))
    if comparison.select(phase="default") and comparison.select(phase="tuned"):
        parts.append(("Effect of tuning", effect_of_tuning(comparison)))
    if comparison.target is not None and comparison.ranking_phase != "search":
        parts.append(("Speed", speed(comparison)))
    parts.append(("Failures", _failures(comparison)))
    return [(heading, text) for heading, text in parts if text]


def _unfinished(comparison: Comparison) -> str:
    if not comparison.waiting:
        return ""
    has = "has" if comparison.waiting == 1 else "have"
    return (
        f"{plural(comparison.waiting, 'trial')} of this sweep {has} not ended. The results below "
        "may change, and the test split stays sealed until all trials have ended."
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
        f"{arms} of {family} on {comparison.data}, by {readable(comparison.metric)} "
        f"({better} is better)."
    )


def _protocol(comparison: Comparison, settings: Mapping[str, Any]) -> str:
    def counts(phase: str) -> list[int]:
        return sorted({len(comparison.select(arm, phase)) for arm in comparison.arms})

    def span(values: Sequence[int]) -> str:
        return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"

    # One sentence for each phase.
    sentences = []
    if comparison.select(phase="default"):
        sentences.append(f"Untuned: each arm's own defaults, {span(counts('default'))} seeds.")
    if comparison.select(phase="search"):
        how = str(settings.get("search") or "")
        each = "" if len(comparison.arms) == 1 else " in each arm's own space"
        searched = counts("search")
        trials = "trial" if searched == [1] else "trials"
        text = (
            f"Search: {span(searched)} {readable(how) + ' ' if how else ''}{trials}{each}, one "
            "seed."
        )
        if len(searched) > 1 and not comparison.waiting:
            text += (
                " The arms did not have the same number of trials, so the comparison is not fair."
            )
        sentences.append(text)
    if comparison.select(phase="tuned"):
        sentences.append(
            f"Tuned: the best setting of each search again, with {span(counts('tuned'))} new seeds."
        )
    missing = [phase for phase in ("default", "tuned") if not comparison.select(phase=phase)]
    if len(missing) == 1:
        sentences.append(f"There are no {PHASE_WORDS[missing[0]]} runs.")
    # The data that the choices used, and the scheduler.
    sentences.append(
        "Settings were chosen on the validation split. The test split was used only for this "
        "report, to evaluate the untuned and the tuned runs."
        if comparison.test_metric
        else "Settings were chosen on the validation split. There are no figures on the test split."
    )
    sentences.append(SCHEDULERS.get(str(settings.get("scheduler")), ""))
    return " ".join(sentences).strip()


def _failures(comparison: Comparison) -> str:
    def count(status: str) -> int:
        return sum(row.status == status for row in comparison.rows)

    parts = []
    if count("diverged"):
        arms = {
            arm: sum(row.status == "diverged" for row in comparison.select(arm))
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
        parts.append(f"{count('running')} had not ended when this report was written")
    if count("stopped"):
        parts.append(f"{count('stopped')} were stopped early")
    total = plural(len(comparison.rows), "trial")
    if not parts:
        return f"None: all of {total} ended without an error."
    return (
        f"Of {total}, {'; '.join(parts)}. Trials that diverged or failed count as worse than all "
        "other trials. Trials that have not ended do not count."
    )


def limits(comparison: Comparison) -> list[str]:
    """List conclusions that the results do not support, one or two sentences each."""
    several = len(comparison.arms) > 1
    points = [
        f"The results hold for {comparison.data or 'these data'}, these networks and this length "
        "of training. They say nothing about others."
    ]
    if several:
        points.append(
            "The best arm is not better in general: rankings depend on the search spaces and the "
            "budget. A wider, narrower or shifted space may reverse them (arXiv:1910.05446)."
        )
        points.append(
            "There are many arms: among ten comparisons, one seems certain by chance more often "
            "than a single comparison would. No correction was made."
        )
    if comparison.select(phase="search") and comparison.select(phase="tuned"):
        points.append(
            "Each setting was chosen with one seed. The tuned runs show the results of that "
            "choice, not what another search would have chosen."
        )
    if comparison.ranking_phase == "search":
        points.append("There are no runs with other seeds, so a trial's lead may be chance.")
    points.append(
        "CPU seconds are the process time of the trials on the machine that ran them, with the "
        "evaluations on the validation split. Steps can be compared between machines, seconds "
        "cannot."
    )
    return points
