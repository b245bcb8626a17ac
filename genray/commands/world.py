"""`genray train world`'s episodes, and `genray play MODEL --dream`: reality beside a dream."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genray.commands.train import TrainLaunch
from genray.errors import ConfigError, require

if TYPE_CHECKING:
    from genray.commands.evaluate import PlayConfig
    from genray.gen.world.config import WorldConfig
    from genray.gen.world.model import WorldModel
    from genray.rl.env import EnvConfig

HEADER, MARGIN = 14, 4
"""Height of the line above the screens of a film, and the distance of the screens, in pixels."""


@dataclass(frozen=True, kw_only=True)
class WorldLaunch(TrainLaunch):
    """Options of the training of a world model on the run directory and on the episodes."""

    from_run: Path | None = None
    """Record episodes of this run's policy, and train on them: 20,000 screens, as with `genray data
    episodes --from-run`. --data atari:GAME records random play, unless it is recorded already."""


def with_episodes(launch: WorldLaunch, config: "WorldConfig") -> "WorldConfig":
    """Return `config` with recorded episodes as its data, for --from-run and --data atari:GAME.

    Raises ConfigError for an unknown game, and CheckpointError for a run without a policy.
    """
    from genray.commands.data import record_episodes
    from genray.distributed.episodes import EpisodesConfig
    from genray.gen.data.config import data_folder
    from genray.gen.data.episodes import episodes_file
    from genray.rl.games import resolve_game
    from genray.rl.policy import open_policy

    kind, _, path = config.data.data.partition(":")
    folder = data_folder(config.data.data_folder)
    if launch.from_run is not None:
        policy = open_policy(launch.from_run)
        name = f"{policy.env.title.replace(':', '-')}-{launch.from_run.name}-{policy.step}"
        file = episodes_file(folder, name)
        if not file.exists():
            record_episodes(EpisodesConfig(from_run=launch.from_run, out=file))
        return replace(config, data=replace(config.data, data=f"episodes:{file}"))
    if kind == "atari":
        game = resolve_game(Path(path).name)
        file = episodes_file(folder, game)
        if not file.exists():
            record_episodes(EpisodesConfig(game=game, habit=0.5, out=file))
        return replace(config, data=replace(config.data, data=f"episodes:{game}"))
    return config


def play_dream(path: Path, options: "PlayConfig") -> int:
    """Film a real game beside a dream from the same first screens and with the same actions;
    returns the exit status.
    """
    from genray.distributed.dream_env import open_world
    from genray.media import write_clip
    from genray.threads import own_threads, user_threads

    model, config = open_world(path)
    with own_threads(user_threads() or 1):
        frames = side_by_side(model, config, options)
        first = next(frames)
        write_clip(options.out, itertools.chain([first], frames), fps=15, scale=2)
    print(options.out)
    return 0


def write_world_page(
    model: "WorldModel",
    config: dict[str, Any],
    out: Path,
    policy: Path | None = None,
    step: int | None = None,
) -> Path:
    """Write a world model as a page on which it is played, and return `out`.

    `config`: of the saved model. `policy`: a run or a directory of a policy that can take over on
    the page; `step`: which of the run's policies, default: the newest.
    """
    from genray.commands.world_agent import agent_parts, check_agent
    from genray.gen.world.about import action_names, game_title
    from genray.gen.world.web_page import write_page
    from genray.rl.policy import open_policy

    agent = None
    if policy is not None:
        loaded = open_policy(policy, step)
        check_agent(loaded, model, dreamed_env(config))
        agent = agent_parts(loaded.network, loaded.env, model)
    names = action_names(config, model.sizes.actions)
    write_page(model.eval(), out, game_title(config), names, agent=agent)
    return out


def dreamed_env(config: dict[str, Any]) -> "EnvConfig":
    """Return the configuration of the game that a saved world model dreams.

    Raises ConfigError if the model does not say which game that is.
    """
    from genray.config import from_dict
    from genray.gen.world.about import recipe_of
    from genray.rl.env import EnvConfig

    recipe = recipe_of(config)
    if "env" in recipe:  # a user's environment, which has no protocol of Atari
        rules = {name: recipe[name] for name in ("env", "env_config")}
    else:
        require("game" in recipe, "the world model does not say which game it dreams")
        rules = {"game": recipe["game"], **recipe.get("protocol", {})}
    return from_dict(EnvConfig, rules, "env.")


def side_by_side(
    model: "WorldModel", config: dict[str, Any], options: "PlayConfig"
) -> Iterator[np.ndarray]:
    """Yield pictures of a real screen beside a dreamed one, uint8 RGB [H, W, 3]."""
    from genray.commands.world_agent import check_game
    from genray.distributed.played import Job, moments_of
    from genray.gen.sprites.palette import NearestColour
    from genray.gen.world.dream import Dream
    from genray.gen.world.model import START, Start
    from genray.rl.policy import open_policy

    env = dreamed_env(config)
    if options.policy is not None:
        policy = open_policy(options.policy, options.step)
        check_game(policy, env)
        env = policy.env
    job = Job(
        env, 1, False, 0, False, options.seed, options.policy, options.epsilon, max_pool=False,
        most_lanes=1,
    )  # fmt: skip
    env_rng, act_rng = job.generators()
    nearest = NearestColour(model.language.palette_P3)
    dream = Dream(model)
    start, over, dreamed_score, score = Start([], []), "", 0.0, 0.0
    for number, moment in enumerate(moments_of(job, int(env_rng.integers(2**31 - 1)), act_rng)):
        real = moment.shown[0]
        action = 0 if moment.action_E is None else int(moment.action_E[0])
        if moment.step is not None:
            score += float(moment.step.reward_E[0])
        if number < START:
            screen = model.read(nearest.indices(moment.shown)[0])
            start = Start([*start.screens, screen], [*start.actions, *[action] * (number > 0)])
            if number == START - 1:
                dream.begin([start], options.seed)
                score = 0.0
            shown, title = real, "both are real"
        else:
            if not over:
                step = dream.step([action])[0]
                dreamed_score += step.reward
                over = "ended" if step.done else ""
            shown = model.language.palette_P3[dream.screen()]
            title = f"dreamed {number - START + 1}  {dreamed_score:g} {over}"
        yield _joined(real, shown, f"real  {score:g}", title)
        ended = moment.step is not None and bool(
            moment.step.terminated_E[0] | moment.step.truncated_E[0]
        )
        if ended or number >= options.max_steps:
            return


def _joined(real: np.ndarray, dreamed: np.ndarray, left: str, right: str) -> np.ndarray:
    """Return two screens beside each other below a line of text."""
    from PIL import Image, ImageDraw

    height, width, _ = real.shape
    canvas = np.zeros((height + HEADER, 2 * width + MARGIN, 3), np.uint8)
    canvas[HEADER:, :width], canvas[HEADER:, width + MARGIN :] = real, dreamed
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for text, x in ((left, 2), (right, width + MARGIN + 2)):
        draw.text((x, 1), text, fill=(255, 255, 255))
    return np.asarray(image)


def refuse_dream_options(options: "PlayConfig") -> None:
    """Raise ConfigError for --policy without --dream."""
    if options.policy is not None and not options.dream:
        raise ConfigError(f"--policy {options.policy}: only with --dream; name the run itself")
