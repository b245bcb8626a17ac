"""Writes a policy as a model directory in the Hugging Face layout, with its card.

model/
  config.json          the network, the environment, the step and the evaluation
  model.safetensors    the tensors
  README.md            the card: YAML for the Hub, scores with their protocol, how to use it
"""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from genray.config import from_dict, to_dict
from genray.rl.config import DQNConfig
from genray.rl.engine import network_card
from genray.rl.env import EnvConfig
from genray.rl.evaluation import Evaluation
from genray.rl.networks import QNetwork
from genray.runs import modelstore

NOT_EVALUATED = "It has not been evaluated at this step."


def save_policy(
    folder: Path,
    config: DQNConfig,
    network: QNetwork,
    step: int,
    result: Evaluation | None,
    origin: dict[str, Any] | None = None,
    words: str = "",
) -> Path:
    """Save the policy as a model of kind "dqn", with its environment and its evaluation; return the
    model's directory.

    `result`: None for a policy that has not been evaluated at `step`. `origin`: JSON values that
    describe how the policy was chosen from several, for `config.json`. `words`: text that is added
    to the model's card.
    """
    about = policy_config(config, network, step, result)
    about |= {"origin": origin} if origin else {}
    return write_policy(folder, about, network.state_dict(), [result] if result else [], words)


def policy_config(
    config: DQNConfig, network: QNetwork, step: int, result: Evaluation | None
) -> dict[str, Any]:
    """Return the content of a policy's `config.json`, without "format" and "kind"."""
    return {
        **network_card(config, network.num_actions, network.frame_shape, network.observation),
        "step": step,
        "env": to_dict(config.env),
        "evaluation": result and result.to_dict(),
    }


def write_policy(
    folder: Path,
    about: dict[str, Any],
    tensors: Mapping[str, torch.Tensor],
    evaluations: Sequence[Evaluation],
    words: str = "",
    also: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Write a model directory of kind "dqn" and return it. An existing one is replaced atomically.

    `about`: as `policy_config` returns it. `also`: writes further files into the directory that it
    is given, before the directory gets its name. Raises OSError.
    """
    card = policy_card(about, evaluations, words)
    return modelstore.save_model(folder, "dqn", about, tensors, card, also)


def policy_card(about: dict[str, Any], evaluations: Sequence[Evaluation], words: str = "") -> str:
    """Return the card of a policy, Markdown that begins with YAML for the Hugging Face Hub.

    The first one of `evaluations`, all of this policy, is its score in the YAML.
    """
    env = from_dict(EnvConfig, about["env"], "env.")
    step = about.get("step")
    data = yaml.safe_dump(hub_data(env, evaluations), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{data}---",
        f"# A DQN policy for {env.title}",
        f"Trained by genray for {step:,} agent steps." if isinstance(step, int) else "",
        evaluations[0].summary() if evaluations else NOT_EVALUATED,
        score_table(evaluations),
        "Use it: `genray play RUN --out clip.gif`, `genray evaluate RUN`, where RUN is the run's "
        "directory or this one. The tensors are in `model.safetensors`, and `config.json` "
        f"describes the network. Input: {_described_input(about)}, oldest first; output: Q-values "
        f"[B, {about['num_actions']}]. `genray export` writes the network as ONNX.",
        words,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _described_input(about: dict[str, Any]) -> str:
    """Return the network's input in words."""
    shape = ", ".join(map(str, (about["stack"], *about["frame_shape"])))
    if not about.get("observation"):
        return f"a uint8 stack of frames [B, {shape}]"
    arrays = "; ".join(
        f"`{field['name'] or 'observation'}`, {field['dtype']} {list(field['shape'])}"
        for field in about["observation"]
    )
    return f"the bytes of the observation's arrays ({arrays}), uint8 [B, {shape}]"


def hub_data(env: EnvConfig, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Return the YAML of a card as the Hugging Face Hub reads it: library, tags, and the score as
    "mean +/- standard deviation" over episodes, which the Hub's leaderboards expect. The Hub
    refuses other characters in the name of an environment than `hub_name` leaves.
    """
    title = env.title if env.env else f"ALE/{''.join(map(str.title, env.title.split('_')))}-v5"
    tags = ["reinforcement-learning", "deep-reinforcement-learning", "dqn", "ape-x"]
    data: dict[str, Any] = {
        "library_name": "genray",
        "pipeline_tag": "reinforcement-learning",
        "tags": [*tags, *([] if env.env else ["atari"]), hub_name(title)],
    }
    if evaluations:
        scores = evaluations[0].scores
        metric = {
            "type": "mean_reward",
            "name": "mean_reward",
            "value": f"{statistics.fmean(scores):.2f} +/- {statistics.pstdev(scores):.2f}",
            "verified": False,
        }
        task = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
        result = {
            "task": task,
            "dataset": {"name": title, "type": hub_name(title)},
            "metrics": [metric],
        }
        data["model-index"] = [{"name": "DQN", "results": [result]}]
    return data


def hub_name(title: str) -> str:
    """Return an environment's name with letters, digits, "_", "-", ".", and at most one "/"."""
    first, slash, rest = re.sub(r"[^\w./-]", "-", title, flags=re.ASCII).partition("/")
    return first.replace(".", "-" if slash else ".") + slash + rest.replace("/", "-")


def score_table(evaluations: Sequence[Evaluation]) -> str:
    """Return a Markdown table with a row for each evaluation: the score and its protocol."""
    if not evaluations:
        return ""
    rows = [
        "| mean (95%) | median | episodes | human-normalised | ε | sticky actions | no-op starts "
        "| frames at most | cut |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in evaluations:
        interval = "" if each.ci95 is None else f" ± {each.ci95:,.1f}"
        normalised = "" if each.human_normalised is None else f"{each.human_normalised:.1%}"
        sticky, noops = (
            "" if value is None else f"{value:g}" for value in (each.sticky_actions, each.noop_max)
        )
        cells = (
            f"{each.mean:,.1f}{interval}", f"{each.median:,.1f}", len(each.scores), normalised,
            f"{each.epsilon:g}", sticky, noops, f"{each.max_episode_frames:,}", each.num_cut,
        )  # fmt: skip
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)
