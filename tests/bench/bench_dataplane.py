"""The data plane beside its peers and its limits. `python -m tests.bench.bench_dataplane`

Every system does the work of `rivals/replays/work.py` in a fresh process with one thread, in
turns, `--repeats` times; figures are medians of rates a CPU second. genray's process measures
the limit (the fastest gather of the same bytes, and nothing else) in turns with genray itself; a
part of the limit is the median of such pairs. The feed is measured by the wall clock: it means
something on a machine with nothing else to do, and so is torchrl's Ray replay beside it. The
bytes between two hosts need root (`hosts_feed.py`); without it they are null, with the reason. A
peer that is not installed is named, and left out.
"""

import argparse
import importlib.util
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import hosts_feed
from tests.bench.common import (
    BenchError,
    describe_machine,
    last_json_line,
    print_table,
    run_measured,
)

PEERS = {  # our name: the package that must be here
    "cpprb": "cpprb",
    "torchrl": "torchrl",
    "tianshou": "tianshou",
    "sb3": "stable_baselines3",
    "rllib": "ray",
    "reverb": "reverb",
}
WITH_TREES = ("cpprb", "torchrl", "tianshou")
TITLES = {
    "genray": "**genray**",
    "sb3": "Stable-Baselines3 (uniform)",
    "rllib": "RLlib, prioritized episodes",
    "reverb": "Reverb",
}
TREE_LEAVES = 1_000_000
BATCH_SIZES = (32, 128, 512)
Results = dict[str, list[dict[str, Any]]]


def measure(
    names: list[str], argv: list[str], repeats: int, results: Results, broken: dict[str, str]
) -> None:
    """Each system's process in turns; one that fails is left out from then on, and says why."""
    for _ in range(repeats):
        for name in names:
            if name in broken:
                continue
            try:
                found = run_measured(
                    ["tests.bench.rivals.replays", name, *argv], threads=1, timeout_s=1500
                )
            except BenchError as error:
                broken[name] = str(error).strip().splitlines()[-1]
                print(f"{name} left out: {error}", flush=True)
                continue
            results.setdefault(name, []).append(found)
            print(name, found, flush=True)


def medians(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        k: median(one[k] for one in found) if isinstance(v, int | float) else v
        for k, v in found[0].items()
    }


def best_peer(peers: dict[str, dict[str, Any]], figure: str) -> tuple[str, float]:
    """(name, its figure) of the fastest; Raises BenchError without peers."""
    if not peers:
        raise BenchError("no peer is here: install the bench extra (make bench does)")
    return max(((name, values[figure]) for name, values in peers.items()), key=lambda pair: pair[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="CPU seconds of each measured stretch"
    )
    parser.add_argument("--quick", action="store_true", help="one repeat, short stretches")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("genray", *PEERS),
        default=["genray", *PEERS],
        metavar="SYSTEM",
    )
    parser.add_argument(
        "--frames",
        metavar="RUN",
        default=None,
        help="measure the compressed store on frames of this run's policy, too",
    )
    arguments = parser.parse_args()
    if arguments.frames and not Path(arguments.frames, "model").is_dir():
        parser.error(
            f"--frames {arguments.frames}: holds no model/; name a run of `genray train dqn`"
        )
    if arguments.quick:
        arguments.repeats, arguments.seconds = 1, 0.2
    machine = describe_machine()
    missing = [name for name, package in PEERS.items() if importlib.util.find_spec(package) is None]
    names = ["genray"] + [name for name in PEERS if name in arguments.only and name not in missing]
    stretch = ["--seconds", str(arguments.seconds)]

    replays: Results = {}
    trees: Results = {}
    broken: dict[str, str] = {}
    measure(names, stretch, arguments.repeats, replays, broken)
    measure(
        [name for name in names if name == "genray" or name in WITH_TREES],
        [*stretch, "--tree", str(TREE_LEAVES)],
        arguments.repeats,
        trees,
        broken,
    )
    bare = {
        size: run_measured(
            [
                "tests.bench.rivals.bare_update",
                "learner",
                "--batch-size",
                str(size),
                "--seconds",
                str(4 * arguments.seconds),
            ],
            threads=1,
            timeout_s=1500,
        )
        for size in BATCH_SIZES
    }
    play = run_measured(
        ["tests.bench.rivals.bare_update", "collector", "--seconds", str(4 * arguments.seconds)],
        threads=1,
        timeout_s=1500,
    )

    trained: dict[str, Any] = {}
    if arguments.frames:
        argv = [
            "tests.bench.rivals.replays",
            "genray",
            *stretch,
            "--run",
            str(Path(arguments.frames).resolve()),
        ]
        trained = run_measured(argv, threads=1, timeout_s=1500)

    feed_seconds = ["--seconds", str(4 * arguments.seconds)]

    def feed(system: str, size: int, *more: str) -> dict[str, Any]:
        argv = [f"tests.bench.rivals.{system}", "--batch-size", str(size), *more, *feed_seconds]
        return run_measured(argv, threads=1, timeout_s=1500)

    feed_512, feed_32 = (
        feed("feed", 512, "--round-batches", "1"),
        feed("feed", 32, "--round-batches", "16"),
    )
    ray_512 = ray_32 = None
    if "torchrl" in names:
        try:
            ray_512, ray_32 = (feed("feed_torchrl", size)["per_s"] for size in (512, 32))
        except BenchError as error:
            broken["torchrl's RayReplayBuffer"] = str(error).strip().splitlines()[-1]
    wire: dict[int, dict[str, dict[str, float]]] = {}
    wire_why = None
    try:
        wire = hosts_feed.measure(4 * arguments.seconds)
    except BenchError as error:
        wire_why = str(error).strip().splitlines()[0]

    rates = {name: medians(found) for name, found in replays.items()}
    pairs = {name: medians(found) for name, found in trees.items()}
    ours, our_tree = rates.pop("genray"), pairs.pop("genray")
    rows = []
    for name, values in [("genray", ours), *rates.items()]:
        tree = (our_tree if name == "genray" else pairs.get(name, {})).get("pairs")
        rows.append(
            (
                TITLES.get(name, name),
                f"{values['sample_512']:,.0f}",
                f"{values['sample_32']:,.0f}",
                f"{values['adds']:,.0f}",
                f"{values['bytes']:,.0f}" if values["bytes"] else "–",
                f"{tree:,.0f}" if tree else "–",
            )
        )
    for title, which in (
        ("the fastest gather, in turns with genray", "limit"),
        ("memcpy in one piece, in turns", "memcpy"),
    ):
        rows.append(
            (
                title,
                *(
                    f"{ours[f'{name}_{which}']:,.0f}"
                    for name in ("sample_512", "sample_32", "adds")
                ),
                "",
                "",
            )
        )
    print_table(
        f"Sample + update, adds, a CPU second of one core; {arguments.repeats} repeats; {machine}",
        (
            "replay",
            "batches of 512",
            "of 32",
            "frames added",
            "bytes a transition",
            f"tree of {TREE_LEAVES:,}, pairs of 512",
        ),
        rows,
    )
    parts = [
        ("sample + update, 512", "≥ 0.80", ours["sample_512_of_limit"]),
        ("sample + update, 32", "≥ 0.80", ours["sample_32_of_limit"]),
        ("adds", "≥ 0.50", ours["adds_of_limit"]),
        (
            "learner of a bare loop, the worst of 32, 128, 512",
            "≥ 0.95",
            min(one["of_bare"] for one in bare.values()),
        ),
        ("collector of a bare loop", "≥ 0.92", play["of_bare"]),
    ]
    parts += [
        ("LZ4 store: sampling rate, of the raw store's", "≥ 0.50", ours["compressed_rate_of_raw"]),
        ("tree, of the best peer's", "≥ 1.25", our_tree["pairs"] / best_peer(pairs, "pairs")[1]),
        (
            "feed over Ray, 512, of the same in one process",
            "≥ 0.50",
            feed_512["shared_1"] / feed_512["in_process"],
        ),
    ]
    if trained:
        parts.append(
            (
                "LZ4 store on a policy's frames: the same",
                "≥ 0.50",
                trained["compressed_rate_of_raw"],
            )
        )
    print_table(
        "Parts of what is possible",
        ("what", "goal", "measured"),
        [(a, b, f"{c:.2f}") for a, b, c in parts],
    )
    packed = [("random play", ours)] + (
        [(f"the policy of {arguments.frames}", trained)] if trained else []
    )
    print_table(
        "LZ4 store, bytes a transition",
        ("frames of", "goal", "measured"),
        [(who, "≤ 1,024", f"{found['bytes_compressed']:,.0f}") for who, found in packed],
    )
    print_table(
        "The learner's feed over Ray, batches a second by the wall clock; two processes on one "
        "node",
        (
            "batches of",
            "in one process",
            "genray: shared memory",
            "genray: sent as slices",
            "torchrl's RayReplayBuffer",
        ),
        [
            (
                "512",
                f"{feed_512['in_process']:,.0f}",
                f"{feed_512['shared_1']:,.0f}",
                f"{feed_512['store_1']:,.0f}",
                f"{ray_512:,.1f}" if ray_512 else "–",
            ),
            (
                "32, 16 a call (torchrl: 1)",
                f"{feed_32['in_process']:,.0f}",
                f"{feed_32['shared_16']:,.0f}",
                f"{feed_32['store_16']:,.0f}",
                f"{ray_32:,.1f}" if ray_32 else "–",
            ),
        ],
    )
    if wire:
        print_table(
            "A batch of 512 between two hosts, MB on the wire",
            ("frames", "n = 1 (goal ≤ 2.5)", "n = 3 (goal ≤ 3.5)"),
            [(way, *(f"{wire[n][way]['bytes'] / 1e6:.2f}" for n in (1, 3))) for way in wire[3]],
        )
    else:
        print(f"no bytes between hosts: {wire_why}")
    for name in missing:
        print(f"not installed, so not compared: {name}")
    for name, why in broken.items():
        print(f"failed, so not compared: {name}: {why}")

    peer_512, peer_32, peer_adds = (
        best_peer(rates, figure) for figure in ("sample_512", "sample_32", "adds")
    )
    peer_tree = best_peer(pairs, "pairs")
    last_json_line(
        {
            f"{name}_of_limit": ours[f"{name}_of_limit"]
            for name in ("sample_512", "sample_32", "adds")
        }
        | {
            "bytes_raw": ours["bytes"],
            "bytes_compressed": ours.get("bytes_compressed"),
            "compressed_rate_of_raw": ours.get("compressed_rate_of_raw"),
            "bytes_compressed_trained": trained.get("bytes_compressed"),
            "compressed_rate_of_raw_trained": trained.get("compressed_rate_of_raw"),
            "tree_of_best_peer": our_tree["pairs"] / peer_tree[1],
            "feed_512_per_s": feed_512["shared_1"],
            "feed_512_of_in_process": feed_512["shared_1"] / feed_512["in_process"],
            "feed_512_sent_per_s": feed_512["store_1"],
            "feed_32_per_s": feed_32["shared_16"],  # 16 batches a call
            "feed_512_torchrl_per_s": ray_512,
            "feed_32_torchrl_per_s": ray_32,
            "wire_bytes_512": wire[3]["lz4"]["bytes"] if wire else None,
            "wire_bytes_512_n1": wire[1]["lz4"]["bytes"] if wire else None,
            "wire_bytes_512_packed_on_the_way": wire[3]["packed"]["bytes"] if wire else None,
            "wire_bytes_512_plain": wire[3]["plain"]["bytes"] if wire else None,
            "wire_bytes_512_is_null_because": wire_why,
            "not_compared": {**{name: "not installed" for name in missing}, **broken},
            "learner_of_bare": min(one["of_bare"] for one in bare.values()),
            "collector_of_bare": play["of_bare"],
            "sample_512_per_s": ours["sample_512"],
            "sample_32_per_s": ours["sample_32"],
            "adds_per_s": ours["adds"],
            "tree_pairs_per_s": our_tree["pairs"],
            "best_peer_512": peer_512[1],
            "best_peer_512_is": peer_512[0],
            "best_peer_32": peer_32[1],
            "best_peer_32_is": peer_32[0],
            "best_peer_adds": peer_adds[1],
            "best_peer_adds_is": peer_adds[0],
            "best_peer_tree": peer_tree[1],
            "best_peer_tree_is": peer_tree[0],
        }
        | {f"learner_{size}_of_bare": one["of_bare"] for size, one in bare.items()}
    )


if __name__ == "__main__":
    main()
