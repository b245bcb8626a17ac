"""Why predicted screens are wrong: `python -m tests.bench.bench_world_causes --model RUN`.

Every decision about a held-out step is compared with the real one, given that all decisions before
it were right. A step counts once for each group of sprites and each kind of wrong decision, and is
"alone" there if nothing else about it is wrong. About a minute of CPU.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from genray.config import from_dict
from genray.distributed.dream_env import open_world
from genray.gen.data.config import DataConfig
from genray.gen.data.episodes import EpisodesSplit, load_episodes
from genray.gen.world import state as columns
from genray.gen.world.episodes import Step, read_steps, rows_of
from genray.gen.world.inputs import split_rows
from genray.gen.world.model import WorldModel
from tests.bench.common import describe_machine, last_json_line, print_table

Cause = tuple[int, str]
"""A group, and a kind of decision."""
BATCH = 64


@torch.inference_mode()
def causes(model: WorldModel, steps: list[Step]) -> Iterator[set[Cause]]:
    """Yield the wrong decisions about each step."""
    network, group_of = model.network, model.looks.groups
    tables = network.tables()
    for at in range(0, len(steps), BATCH):
        part = steps[at : at + BATCH]
        rows = rows_of(part, model.sizes.layout, model.move_table, model.sizes.actions)
        inputs = split_rows(rows, model.sizes.layout)
        track = inputs.tracks_BMC
        seen = network.see(inputs, tables)
        if network.events_first:
            seen = network.told(seen, inputs.events_B3)
        state_BSD = network.decide(inputs, seen, tables, network.next_places(track))
        most = track.shape[1]
        for lane in range(len(part)):
            found: set[Cause] = set()
            state, wanted = state_BSD[lane, :most], track[lane, :, columns.TO_MOVE]
            look = track[lane, :, columns.LOOK]
            move = network.move_logits(state).argmax(1)
            looks = network.look_logits(
                state, wanted, look, track[lane, :, columns.PREVIOUS], tables
            ).argmax(1)  # fmt: skip
            for number in range(int(inputs.has_track_BM[lane].sum())):
                group = group_of[int(look[number])]
                given, real = int(move[number]), int(wanted[number])
                if given != real:
                    ended = {real: "ends, and was kept", given: "stays, and was ended"}
                    found.add((group, ended.get(network.gone, "move")))
                elif real != network.gone and looks[number] != track[lane, number, columns.TO_LOOK]:
                    found.add((group, "look"))
            births = int(inputs.has_birth_BK[lane].sum())
            for number in range(births + 1):
                state = state_BSD[lane, most + number][None]
                guess = int(network.group_logits(state).argmax())
                look_now, y, x = (
                    inputs.births_BK3[lane, number].tolist() if number < births else (0, 0, 0)
                )
                group = group_of[look_now] if number < births else network.no_more
                if guess != group:
                    birth = {group: "birth that is none", guess: "birth that was missed"}
                    kind = birth.get(network.no_more, "birth of another group")
                    found.add((min(group, guess), kind))
                elif number < births:
                    context = state + network.group_in(torch.tensor([group]))
                    right = int(network.y_logits(context).argmax()) == y
                    context = context + tables.y[y]
                    right &= int(network.x_logits(context).argmax()) == x
                    context = context + tables.x[x]
                    born = network.born_logits(context, torch.tensor([group]), tables)
                    if not right or int(born.argmax()) != look_now:
                        found.add((group, "birth's place or look"))
            yield found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="run or model directory")
    parser.add_argument("--steps", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, config = open_world(options.model)
    data = load_episodes(from_dict(DataConfig, config["data"]["options"], "data."))
    assert isinstance(data.test, EpisodesSplit)
    steps = [step for each in read_steps(model, data.test.episodes) for step in each[2:]]
    chosen = steps[:: max(1, len(steps) // options.steps)]
    every: Counter[Cause] = Counter()
    alone: Counter[Cause] = Counter()
    right = 0
    for found in causes(model, chosen):
        every.update(found)
        right += not found
        if len(found) == 1:
            alone.update(found)
    rows = [[*cause, count, alone[cause]] for cause, count in every.most_common(20)]
    print_table(
        f"{len(chosen)} held-out steps", ["group", "wrong decision", "steps", "alone"], rows
    )
    print(describe_machine())
    last_json_line({"steps": len(chosen), "all_right": right / len(chosen)})


if __name__ == "__main__":
    main()
