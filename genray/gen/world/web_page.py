"""Writes a world model as a page: a game inside a network, in a browser, without a server.

The page contains the scripts of `web/`, the model's tables as JSON, and its weights as one block of
bytes. Weights are 16-bit floating-point numbers unless another type is chosen.
"""

import base64
import html
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from genray.gen.world.model import WorldModel
from genray.gen.world.quick_sampling import QuickDrawer
from genray.gen.world.sampling import Sampling
from genray.gen.world.state import State
from genray.gen.world.tracks import MEMORY
from genray.runs.files import writing_file

SCRIPTS = ("network", "agent", "state", "drawer", "screen", "game", "joystick", "play")
"""Files of `web/`, each after those that it imports."""
STARTS = 64
"""The page has at most so many of the model's starts."""
ALIGNMENT = 4
"""Arrays begin at multiples of so many bytes."""
LARGEST_HALF = float(np.finfo(np.float16).max)


def write_page(
    model: WorldModel,
    path: Path,
    title: str,
    actions: list[str],
    dtype: str = "f2",
    agent: dict[str, Any] | None = None,
) -> None:
    """Write the page, as a whole or not at all.

    Args:
        model: a trained model, in evaluation mode on the CPU.
        path: of the file.
        title: the game's name.
        actions: the names of the game's actions.
        dtype: of the weights: "f2", or "f4" for twice the size and the same decisions as in Python.
        agent: a policy that can take over (`genray.commands.world_agent`); None: none.
    """
    page = _file("page.html")
    parts, block = _packed({**page_parts(model, title, actions), "agent": agent}, dtype)
    filled = {
        "title": html.escape(title),
        "model": json.dumps(parts, separators=(",", ":")).replace("<", "\\u003c"),
        "weights": base64.b64encode(block).decode(),
        "script": "\n".join(_script(name) for name in SCRIPTS),
    }
    page = re.sub(r"\{(title|model|weights|script)\}", lambda found: filled[found[1]], page)
    with writing_file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def page_parts(model: WorldModel, title: str, actions: list[str]) -> dict[str, Any]:
    """Return everything that the scripts need, with arrays; see `web/game.js`."""
    network, drawer = QuickDrawer(model, Sampling()).parts()
    language, shapes = model.language, model.language.vocabulary.shapes
    usual, unusual = model.surprise.tolist()
    sizes = [shapes[shape].size for shape, _ in model.looks.pairs]
    return {
        "about": {
            "title": title, "actions": actions, "rewards": model.rewards.tolist(),
            "usual": usual, "unusual": unusual, "decisions": model.sizes.decisions,
        },
        "starts": [
            _start(model.begun(model.start(number)))
            for number in range(min(STARTS, model.config.starts))
        ],
        "looks": {"groups": list(model.looks.groups), "sizes": sizes, "memory": MEMORY},
        "screen": {
            "palette": language.palette_P3.tolist(), "background": language.background_HW,
            "backgrounds": language.has_backgrounds, "looks": list(model.looks.pairs),
            "shapes": [[each.group, each.height, each.width] for each in shapes],
            "pixels": np.frombuffer(b"".join(each.pixels for each in shapes), np.uint8),
            "runs": list(language.runs), "layers": list(language.layers),
        },
        "network": network, "drawer": drawer,
    }  # fmt: skip


def _start(state: State) -> dict[str, Any]:
    """Return the state after the real screens of a start."""
    tracks = [
        [
            list(each.moves), each.look, each.previous, each.y, each.x, each.age, each.unseen,
            each.same_look, each.same_y,
        ]
        for each in state.tracks
    ]  # fmt: skip
    return {"tracks": tracks, "actions": list(state.actions), "clocks": list(state.clocks)}


def _packed(parts: Any, dtype: str) -> tuple[Any, bytes]:
    """Return `parts` with the place of each array in a block of bytes, and the block."""
    block = bytearray()

    def pack(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: pack(each) for name, each in part.items()}
        if isinstance(part, (list, tuple)):
            return [pack(each) for each in part]
        if not isinstance(part, np.ndarray):
            return part
        kind = part.dtype.str[1:]
        if part.dtype.kind == "f":
            kind = dtype if np.abs(part).max(initial=0) <= LARGEST_HALF else "f4"
        place = {"at": len(block), "shape": list(part.shape), "type": kind}
        block.extend(np.ascontiguousarray(part, f"<{kind}").tobytes())
        block.extend(bytes(-len(block) % ALIGNMENT))
        return place

    return pack(parts), bytes(block)


def _file(name: str) -> str:
    return resources.files("genray.gen.world.web").joinpath(name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """Return a script without imports and exports: the page has all in one."""
    text = re.sub(r"^import [^;]*;\n", "", _file(f"{name}.js"), flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)
