"""A run's evaluations as a picture and numbers. `python -m tests.bench.learning_curve RUN --out
curve.png`

Each point is the mean of whole games from no-op starts with its 95% confidence interval
(Student's t), beside random play, measured now under the same protocol. Time is training time:
what the run's log counts, its evaluations included.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from genray.config import load_yaml
from genray.rl.config import DQNConfig
from genray.rl.evaluate import random_play
from genray.rl.scores import reference
from tests.bench.common import describe_machine, last_json_line, print_table


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The log's evaluations, with minutes of training over all the pieces that a resumed run
    consists of.
    """
    points, finished, last = [], 0.0, 0.0
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["seconds"] < last:  # resumed: its clock begins anew
            finished += last
        last = entry["seconds"]
        if "evaluation_mean" in entry:
            points.append(entry | {"minutes": (finished + last) / 60})
    return points


def draw(
    path: Path, title: str, points: list[dict[str, Any]], random: float, human: float | None
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=120, layout="constrained")
    axes.errorbar(
        [point["minutes"] for point in points],
        [point["evaluation_mean"] for point in points],
        yerr=[point["evaluation_ci95"] for point in points],
        marker="o", capsize=3, color="#1f5fbf", label="genray (mean of games, 95% interval)",
    )  # fmt: skip
    axes.axhline(
        random, color="#888888", linestyle=":", label=f"random play, measured ({random:,.0f})"
    )
    if human is not None:
        axes.axhline(
            human, color="#bf5f1f", linestyle="--", label=f"human tester, published ({human:,.0f})"
        )
    axes.set(
        title=title, xlabel="minutes on 2 cores", ylabel="score", ylim=(0, None), xlim=(0, None)
    )
    axes.legend(loc="center left", bbox_to_anchor=(0.0, 0.75), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--random-episodes", type=int, default=30)
    arguments = parser.parse_args()
    config = load_yaml(DQNConfig, arguments.run / "config.yaml")
    points = evaluations(arguments.run)
    floor = random_play(config.env, episodes=arguments.random_episodes)
    published = reference(config.env.title)
    draw(arguments.out, config.env.title, points, floor.mean, published[1] if published else None)
    print_table(
        f"{config.env.title}, seed {config.run.seed}; random play {floor.mean:,.0f} ± "
        f"{floor.ci95 or 0:,.0f}; " + describe_machine(),
        ("minutes", "agent steps", "score", "± 95%"),
        [
            (
                f"{p['minutes']:.1f}",
                f"{p['step']:,}",
                f"{p['evaluation_mean']:,.0f}",
                f"{p['evaluation_ci95']:,.0f}",
            )
            for p in points
        ],
    )
    last_json_line(
        {
            "minutes": points[-1]["minutes"],
            "score": points[-1]["evaluation_mean"],
            "ci95": points[-1]["evaluation_ci95"],
            "score_random": floor.mean,
            "ci95_random": floor.ci95,
        }
    )
    print(arguments.out)


if __name__ == "__main__":
    main()
