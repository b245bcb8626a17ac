"""Names the figures that are shown while a DQN run trains."""

from genray.rl.config import DQNConfig

# The columns that are shown while training: (key of `Trainer._values`, title, format).
COLUMNS = (
    ("frames", "frames", "{:,.0f}"),
    ("agent_steps_per_s", "agent steps/s", "{:,.0f}"),
    ("updates", "updates", "{:,.0f}"),
    ("updates_per_s", "updates/s", "{:.1f}"),
    ("samples_per_insert", "samples/insert", "{:.2f}"),
    ("weight_lag_updates", "weight lag", "{:.0f}"),
    ("epsilon", "ε", "{:.3f}"),
    ("episode_return", "return (100 ep.)", "{:,.1f}"),
    ("loss", "loss", "{:.4f}"),
)

RATIO_COLUMNS = (
    ("replay_ratio", "replay ratio", "{:.2f}"),
    ("next_reset", "next reset at", "{:,.0f}"),
)
"""Columns of runs that make an update or more per agent step, or that reset."""


def columns_of(config: DQNConfig) -> tuple[tuple[str, str, str], ...]:
    """Return the columns that are shown while a run with `config` trains."""
    learns_much = config.learner.reset_every or config.replay_ratio >= 1
    return COLUMNS + (RATIO_COLUMNS if learns_much else ())
