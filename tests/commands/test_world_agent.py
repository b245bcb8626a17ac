"""Tests policies on the pages of world models: what they see, their values, and who plays."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genray.commands.world_agent import agent_parts, check_agent
from genray.errors import ConfigError
from genray.gen.world.dream import grey_of
from genray.gen.world.model import WorldModel
from genray.gen.world.web_page import write_page
from genray.rl.crop import Crop
from genray.rl.ensemble import EnsembleNetwork
from genray.rl.env import FRAME, EnvConfig
from genray.rl.lanes import Lanes
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.policy import LoadedPolicy
from tests.helpers.browser import browser, marks
from tests.helpers.pages import Player, opened
from tests.helpers.world import ACTIONS, RIGHT, untrained

__all__ = ["browser", "opened"]  # pytest finds the fixtures by their names here
browser_test = marks[0]
ENV = EnvConfig(game="pong", crop_top=3, crop_bottom=4)
NATURE = NetworkConfig(channels=(4, 5, 6), hidden=8, layer_norm=True)
DER = NetworkConfig(
    encoder="der", hidden=8, head="c51", shared_hidden=True, median_frame=True, input_gain=4.0
)


def policy(config: NetworkConfig, env: EnvConfig = ENV, actions: int = 3) -> LoadedPolicy:
    """Return a policy with random weights, whose values differ much."""
    torch.manual_seed(0)
    kind = EnsembleNetwork if config.ensemble > 1 else QNetwork
    network = kind(config, actions, env.stack).eval()
    for norm in network.modules():
        if isinstance(norm, torch.nn.LayerNorm):
            torch.nn.init.normal_(norm.weight)
            torch.nn.init.normal_(norm.bias)
    for each in network.separate:
        each.advantage[-1].weight.data.mul_(100)
    if network.median_HW is not None:
        network.set_median(torch.randint(256, (5, *FRAME), dtype=torch.uint8))
    return LoadedPolicy(network, env, 0, Path("run"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> WorldModel:
    return untrained(tmp_path_factory.mktemp("toy"), events_first=True, scale=4)[0]


def written(model: WorldModel, folder: Path, loaded: LoadedPolicy) -> Path:
    check_agent(loaded, model, loaded.env)
    agent = agent_parts(loaded.network, loaded.env, model)
    names = ["NOOP", "LEFT", "RIGHT"]
    write_page(model, folder / "game.html", "Toy", names, dtype="f4", agent=agent)
    return folder / "game.html"


LOOK = """() => {
    return {screen: Array.from(game.painted()), frame: Array.from(game.agent.frames.at(-1)),
            values: Array.from(game.agent.values()), act: game.agent.act()};
}"""


@browser_test
@pytest.mark.parametrize(
    ("config", "env"),
    [
        (NATURE, replace(ENV, stack_start="wait")),
        (replace(NATURE, dueling=False, past_actions=2), replace(ENV, stack_start="repeat")),
        (replace(DER, ensemble=2, past_actions=1), ENV),
    ],
    ids=["nature", "without dueling, past actions", "der, c51, two networks"],
)
def test_agent_has_the_values_of_python(
    opened: Any, model: WorldModel, tmp_path: Path, config: NetworkConfig, env: EnvConfig
):
    loaded = policy(config, env)
    page = opened(written(model, tmp_path, loaded))
    grey_P = grey_of(model.language.palette_P3)
    resize = Crop(model.sizes.height, model.sizes.width, env.crop_top, env.crop_bottom, FRAME)

    def frame_of(found: dict[str, Any]) -> np.ndarray:
        """Return the page's frame, which is nearly Python's: sums in float32 and float64 may round
        a half differently.
        """
        screen_HW = np.reshape(found["screen"], (model.sizes.height, model.sizes.width))
        frame = np.array(found["frame"], np.uint8).reshape(1, *FRAME)
        differs = np.abs(resize(grey_P[screen_HW][None]).astype(int) - frame)
        assert differs.max() <= 1 and (differs > 0).mean() < 0.001
        return frame

    lanes = Lanes(frame_of(page.evaluate(LOOK)), env, config.past_actions)
    rng, values = np.random.default_rng(0), []
    for _ in range(8):
        action = int(rng.integers(3))
        page.evaluate("(action) => game.step(action)", action)
        found = page.evaluate(LOOK)
        lanes.push(frame_of(found), np.array([action]), np.zeros(1, bool))
        value_A = lanes.q_values(loaded.network, torch.device("cpu"))[0]
        assert found["values"] == pytest.approx(value_A.tolist(), rel=1e-3, abs=1e-3)
        assert found["act"] == (0 if lanes.waits_E[0] else value_A.argmax())
        values.append(value_A)
    assert np.std(values, axis=0).min() > 1e-2  # the values depend on the screens


@browser_test
def test_key_and_button_hand_over(opened: Any, model: WorldModel, tmp_path: Path):
    loaded = policy(NATURE)
    last = loaded.network.advantage[-1]
    last.weight.data.zero_()
    last.bias.data.copy_(torch.arange(3) == RIGHT)
    page = opened(written(model, tmp_path, loaded))
    player = Player(page)
    page.keyboard.press("m")  # before the game begins, it belongs to the browser
    page.click("#play")
    player.acts(0)
    assert page.inner_text("[role=status]") == "You play."
    page.keyboard.press("M")
    player.acts(RIGHT)
    assert page.inner_text("[role=status]") == "The agent plays."
    page.keyboard.down("ArrowLeft")  # the agent plays on
    page.evaluate("game.acted.length = 0")
    page.wait_for_function("game.acted.length > 5")
    assert set(page.evaluate("game.acted")) == {RIGHT}
    page.keyboard.press("Control+m")
    page.click("text=Play yourself (m)")
    assert page.evaluate("document.activeElement.id") == "screen"  # the space bar fires
    player.acts(1)
    page.keyboard.up("ArrowLeft")
    player.acts(0)
    assert page.inner_text("[role=status]") == "You play."
    page.click("#stop")
    page.click("#agent")  # for the next game
    assert page.inner_text("[role=status]") == "Stopped."
    page.click("#play")
    player.acts(RIGHT)


@browser_test
def test_page_without_an_agent_offers_none(opened: Any, model: WorldModel, tmp_path: Path):
    write_page(model, tmp_path / "game.html", "Toy", list(ACTIONS))
    page = opened(tmp_path / "game.html")
    assert not page.is_visible("#agent")
    page.click("#play")
    page.keyboard.press("m")
    page.wait_for_function("game.steps > 2")


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        (policy(NATURE, EnvConfig(game="krull")), "plays krull, and the model dreams pong"),
        (policy(NATURE, replace(ENV, frame_skip=8)), "--frame-skip 8, and the model has 4"),
        (policy(NATURE, actions=6), "with 6 actions, and the model has 3"),
        (policy(NATURE, EnvConfig(game="pong", crop_top=30)), "larger screens than .* 96x128"),
        (policy(replace(NATURE, head="iqn")), "use a policy of --head scalar or c51"),
        (policy(replace(NATURE, lstm_units=4)), "with an LSTM"),
        (policy(replace(NATURE, encoder="impala")), "cannot compute a layer Sequential"),
        (policy(replace(NATURE, pooling="max")), "cannot compute a layer AdaptiveMaxPool2d"),
        (policy(replace(NATURE, noisy=0.5)), "cannot compute a layer NoisyLinear"),
    ],
    ids=["game", "frame skip", "actions", "screens", "iqn", "lstm", "impala", "pooling", "noisy"],
)
def test_other_policies_are_refused(model: WorldModel, loaded: LoadedPolicy, said: str):
    with pytest.raises(ConfigError, match=said) as refused:
        check_agent(loaded, model, EnvConfig(game="pong"))
        agent_parts(loaded.network, loaded.env, model)
    assert not re.search("\n", str(refused.value))
