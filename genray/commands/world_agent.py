"""Gives a policy to the page of a world model, where it can take over the joystick.

Shapes: P colours of the palette, A actions, H height and W width of the screen.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import nn

from genray.errors import ConfigError, require
from genray.gen.world.dream import grey_of
from genray.gen.world.model import WorldModel
from genray.rl.crop import area_weights
from genray.rl.env import FRAME, EnvConfig
from genray.rl.heads import C51Head, IQNHead
from genray.rl.networks import QNetwork
from genray.rl.policy import LoadedPolicy


def check_game(policy: LoadedPolicy, dreamed: EnvConfig) -> None:
    """Raise ConfigError unless the policy plays the game that a model dreams."""
    env = policy.env
    about = f"--policy {policy.source}: plays {env.title}"
    require(
        env.env == dreamed.env and env.title == dreamed.title,
        f"{about}, and the model dreams {dreamed.title}; name a run of {dreamed.title}",
    )
    require(
        env.frame_skip == dreamed.frame_skip,
        f"{about} with --frame-skip {env.frame_skip}, and the model has {dreamed.frame_skip}; name "
        f"a run with --frame-skip {dreamed.frame_skip}",
    )


def check_agent(policy: LoadedPolicy, model: WorldModel, dreamed: EnvConfig) -> None:
    """Raise ConfigError unless the policy plays the game that the model dreams, with the same
    actions, and the page can compute its network.
    """
    check_game(policy, dreamed)
    network, env, sizes = policy.network, policy.env, model.sizes
    about = f"--policy {policy.source}: plays {env.title}"
    require(
        network.num_actions == sizes.actions,
        f"{about} with {network.num_actions} actions, and the model has {sizes.actions}; name a "
        "run with as many",
    )
    require(
        network.observation is None and network.frame_shape == FRAME,
        f"{about} from other observations than frames of 84x84; the page has only those",
    )
    require(
        sizes.height - env.crop_top - env.crop_bottom >= FRAME[0] and sizes.width >= FRAME[1],
        f"{about} on larger screens than the model's {sizes.height}x{sizes.width}",
    )
    require(
        network.memory is None and not isinstance(network.head, IQNHead),
        f"{about} with an LSTM or quantiles, which the page cannot compute; use a policy of --head "
        "scalar or c51",
    )


def agent_parts(network: QNetwork, env: EnvConfig, model: WorldModel) -> dict[str, Any]:
    """Return everything that `web/agent.js` needs of a policy that `check_agent` accepts.

    Raises ConfigError for a layer that the page cannot compute.
    """
    height = model.sizes.height - env.crop_top - env.crop_bottom
    head, median_HW = network.head, network.median_HW
    return {
        "grey": grey_of(model.language.palette_P3),
        "width": model.sizes.width, "top": env.crop_top,
        "rows": _cells(height, FRAME[0]), "columns": _cells(model.sizes.width, FRAME[1]),
        "stack": network.stack, "start": env.stack_start,
        "past": network.config.past_actions, "actions": network.num_actions,
        "median": None if median_HW is None else median_HW.numpy(),
        "gain": network.config.input_gain,
        "support": head.support_Z.numpy() if isinstance(head, C51Head) else None,
        "members": [_member(each) for each in network.separate],
    }  # fmt: skip


def _cells(size: int, cells: int) -> dict[str, Any]:
    first, share = area_weights(size, cells)
    return {"first": first.astype(np.int16), "share": share}


def _member(network: QNetwork) -> dict[str, Any]:
    streams = {
        "encoder": network.convolutions, "hidden": network.hidden,
        "advantage": network.advantage, "value": network.value,
    }  # fmt: skip
    return {
        name: [] if stream is None else [_layer(each) for each in stream]
        for name, stream in streams.items()
    }


def _layer(layer: nn.Module) -> dict[str, Any]:
    if isinstance(layer, nn.Conv2d) and layer.padding == (0, 0):
        return {"kind": "convolution", "stride": layer.stride[0], **_arrays(layer)}
    if type(layer) is nn.Linear:  # a noisy layer is another kind
        return {"kind": "linear", **_arrays(layer)}
    if isinstance(layer, nn.LayerNorm):
        return {"kind": "norm", "epsilon": layer.eps, **_arrays(layer)}
    if isinstance(layer, nn.ReLU):
        return {"kind": "relu"}
    if isinstance(layer, nn.Flatten):
        return {"kind": "flatten"}
    raise ConfigError(
        f"--policy: the page cannot compute a layer {type(layer).__name__}; use a policy of "
        "--encoder nature or der without --pooling and --noisy"
    )


def _arrays(layer: nn.Module) -> dict[str, np.ndarray]:
    tensors = {"weight": layer.weight, "bias": layer.bias}
    return {
        name: cast(torch.Tensor, each).detach().contiguous().numpy()
        for name, each in tensors.items()
    }
