"""Compares the detectors of characters with the objects in the console's memory. `python -m
tests.bench.check_sprite_detectors [--games seaquest,boxing] [--screens 150]`

OCAtari (`pip install ocatari`, 2.2.1, MIT; Delfosse et al. 2024, https://arxiv.org/abs/2306.08649)
reads each object's kind and place from the memory of the emulator. Random play; every eighth step
of four frames is compared. Memory keeps some objects while the screen does not show them: between
two lives, in explosions, and where a game shows an object in every second frame.
"""

import argparse
import importlib
from typing import Any

import ale_py
import numpy as np

from genray.gen.sprites.palette import PaletteBuilder
from genray.rl.games import resolve_game
from tests.bench.common import describe_machine, last_json_line, print_table
from tests.bench.sprite_detectors import DETECTORS

KINDS: dict[str, dict[str, str]] = {
    "road_runner": {"bird": "Player", "coyote": "Enemy", "seeds": "Seed"},
    "seaquest": {"submarine": "Player", "diver": "Diver", "green fish": "Shark",
                 "own shot": "PlayerMissile"},
    "breakout": {"ball": "Ball", "paddle": "Player"},
    "riverraid": {"plane": "Player", "fuel": "FuelDepot", "helicopter": "Helicopter",
                  "house": "House"},
    "space_invaders": {"aliens": "Alien", "shields": "Shield", "player": "Player",
                       "shot": "Bullet"},
    "freeway": {"chickens": "Chicken"},
    "boxing": {"white boxer": "Player", "black boxer": "Enemy"},
}  # fmt: skip
"""OCAtari's kind of object for each character. Kinds that it does not find are left out, and a kind
of several colours is compared with the first of them."""
HOLD = 0.75
"""Probability that an action is repeated."""
FRAMES, EVERY = 4, 8


def compare(game: str, screens: int) -> dict[str, tuple[float, float, float]]:
    """Return for each character (detector's share of screens, OCAtari's, share of agreement)."""
    ram: Any = importlib.import_module(f"ocatari.ram.{game.replace('_', '')}")
    if game == "road_runner":
        ram.BirdSeeds = ram.Seed  # OCAtari 2.2.1 uses a name that it does not define
    emulator = ale_py.ALEInterface()
    emulator.setInt("random_seed", 7)
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(ale_py.roms.get_rom_path(resolve_game(game)))
    emulator.reset_game()
    objects = ram._init_objects_ram(False)
    actions, rng = emulator.getMinimalActionSet(), np.random.default_rng(3)
    action, palette = actions[0], PaletteBuilder(game)
    found: dict[str, list[tuple[bool, bool]]] = {name: [] for name in KINDS[game]}
    for step in range(screens * EVERY):
        if rng.random() >= HOLD:
            action = actions[rng.integers(len(actions))]
        for _ in range(FRAMES):
            emulator.act(action)
        # Integers, because some games' code subtracts from unsigned bytes.
        ram._detect_objects_ram(objects, emulator.getRAM().astype(int), False)
        if emulator.game_over():
            emulator.reset_game()
            objects = ram._init_objects_ram(False)
        elif step % EVERY == 0:
            kinds = {type(each).__name__ for each in objects if each and each.w > 0 and each.h > 0}
            (screen_HW,) = palette.indices(emulator.getScreenRGB()[None])
            for detector in DETECTORS[game]:
                if detector.name in found:
                    seen = detector.count(screen_HW, palette.palette_P3) > 0
                    found[detector.name].append((seen, KINDS[game][detector.name] in kinds))
    shares = {}
    for name, rows in found.items():
        seen_N, kept_N = np.array(rows).T
        shares[name] = seen_N.mean(), kept_N.mean(), (seen_N == kept_N).mean()
    return {name: tuple(map(float, each)) for name, each in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--games", default=",".join(KINDS))
    parser.add_argument("--screens", type=int, default=150)
    options = parser.parse_args()
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    figures = {game: compare(game, options.screens) for game in options.games.split(",")}
    for game, found in figures.items():
        rows = [[name, *(f"{each:.3f}" for each in shares)] for name, shares in found.items()]
        print_table(game, ["character", "detector", "OCAtari", "agree"], rows)
    print(describe_machine())
    last_json_line(figures)


if __name__ == "__main__":
    main()
