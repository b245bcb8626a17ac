"""Keeps the best evaluated policy of a run as the run's model (`--saved-policy best`)."""

from pathlib import Path
from typing import cast

from genray.errors import CheckpointError
from genray.rl.building import build_network
from genray.rl.card import save_policy
from genray.rl.config import DQNConfig
from genray.rl.evaluation import Evaluation
from genray.rl.networks import QNetwork
from genray.runs import modelstore
from genray.runs.rundir import RunDir

ORIGIN = "best_evaluation"
"""Key of `origin` in the model's config.json: the score by which the policy was chosen."""


class BestPolicy:
    """The policy with the highest mean score of a run's evaluations; the later one of two equals.

    It is the run's model, so a resumed run finds it there.

    Args:
        run: the run directory.
        config: the configuration of the run.
    """

    def __init__(self, run: RunDir, config: DQNConfig):
        self._run, self._config = run, config
        self.score: float | None = best_score(run.model)
        """The score by which the policy was chosen; None before the first evaluation."""

    def offer(self, network: QNetwork, step: int, result: Evaluation) -> bool:
        """Save the policy of `step` if no earlier one has a higher score; return whether it was."""
        if self.score is not None and result.mean < self.score:
            return False
        self.score = result.mean
        self.save(network, step, result)
        return True

    def load(self) -> tuple[QNetwork, int]:
        """Return the policy and its step. Raises CheckpointError."""
        network, about = modelstore.load_model(self._run.model, {"dqn": build_network})
        return cast(QNetwork, network), about["step"]

    def save(self, network: QNetwork, step: int, result: Evaluation) -> None:
        """Save the best policy, which is that of `step`, with an evaluation of it."""
        words = (
            f"The best policy of the run's evaluations, by a score of {self.score:,.1f} there. "
            "A best score is too high, so this one is played again from other starts as the run "
            "ends."
        )
        save_policy(
            self._run.model, self._config, network, step, result, {ORIGIN: self.score}, words
        )


def best_score(model: Path) -> float | None:
    """Return the score by which a run's model was chosen from several; None if it was not."""
    try:
        origin = modelstore.read_config(model).get("origin")
    except CheckpointError:
        return None
    return origin.get(ORIGIN) if isinstance(origin, dict) else None
