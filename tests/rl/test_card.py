"""Tests the card of an Atari policy, and that a stored evaluation is read back."""

import json

import yaml

from genray.config import to_dict
from genray.rl.card import NOT_EVALUATED, policy_card
from genray.rl.config import DQNConfig
from genray.rl.engine import network_card
from genray.rl.env import EnvConfig
from genray.rl.evaluation import Evaluation

CONFIG = DQNConfig(env=EnvConfig(game="road_runner"))
ABOUT = {**network_card(CONFIG, 18, (84, 84)), "step": 45_000, "env": to_dict(CONFIG.env)}
WHOLE = Evaluation("road_runner", [1000.0, 3000.0], [100, 200], 0.001, 0.25, 30, 108_000)
CUT = Evaluation("road_runner", [500.0, 700.0], [10, 10], 0.05, 0.0, 0, 400, num_cut=2)


def test_card_of_an_atari_policy_has_its_score_and_each_protocol():
    card = policy_card(ABOUT, [WHOLE, CUT], "More words.")
    _, front, text = card.split("---\n", 2)
    data = yaml.safe_load(front)
    assert {"atari", "ALE/RoadRunner-v5", "reinforcement-learning"} <= set(data["tags"])
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"]["type"] == "ALE/RoadRunner-v5"
    assert result["metrics"][0]["value"] == "2000.00 +/- 1000.00"
    assert "# A DQN policy for road_runner" in text and "Trained by genray for 45,000" in text
    assert "uint8 stack of frames [B, 4, 84, 84], oldest first; output: Q-values [B, 18]" in text
    header, rule, whole, cut = [line for line in text.splitlines() if line.startswith("|")]
    assert header.count("|") == rule.count("|") == whole.count("|") == cut.count("|")
    # (2,000 − 11.5) / (7,845 − 11.5) = 25.4%; a game that was cut short has no such score.
    assert whole.split(" | ")[1:] == [
        "2,000.0",
        "2",
        "25.4%",
        "0.001",
        "0.25",
        "30",
        "108,000",
        "0 |",
    ]
    assert cut.split(" | ")[1:] == ["600.0", "2", "", "0.05", "0", "0", "400", "2 |"]
    assert card.endswith("\n\nMore words.\n")


def test_card_without_an_evaluation_has_no_score():
    card = policy_card(ABOUT, [])
    assert NOT_EVALUATED in card and "model-index" not in card and "|" not in card


def test_evaluation_from_dict_reads_what_to_dict_wrote_and_older_ones():
    values = json.loads(json.dumps(CUT.to_dict()))
    assert Evaluation.from_dict(values) == CUT
    for name in ("cut_episodes", "stopped"):
        del values[name]
    assert Evaluation.from_dict(values).num_cut == 0
