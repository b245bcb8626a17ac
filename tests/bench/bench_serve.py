"""The service under load, clients and server in one run. `python -m tests.bench.bench_serve
[--quick]`

Load is made by wrk, a compiled client (Debian's; `make system-deps`); its own CPU time does not
count. The model is a DCGAN's generator of 64x64 colour images with untrained weights. Figures
are CPU time of the server's processes, by role:

* images: one image a request, 64 connections without a pause; beside it, in turns, the bare
  batch-32 loop over the same modules and a plain Ray Serve deployment of the same model.
  `images_of_bare` counts replica, HAProxy and Serve's own actors.
* nothing: GET /v2/health/live with its key, through all that stands before a route; replica +
  HAProxy.
* latency: wrk has no rate, but its script may let each connection wait: 64 connections with
  exponential pauses make nearly random arrivals at 70% of what the images' turns reached.
* overload: as many connections more as keep 4 times that rate coming; refusals must be 429 with
  Retry-After.
* memory: resident growth of replica, HAProxy and Serve's actors over 20,000 images.
"""

import argparse
import secrets
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import cast

import torch

from genray.gen.gan.networks import GANModelConfig, Generator
from genray.runs import modelstore
from serve.limits import Limits
from serve.ports import free_port
from tests.bench.common import Summary, describe_machine, last_json_line, print_table, run_measured
from tests.bench.serve_load import Load, Serving, genray_command, need_wrk, serving

IMAGES, NOTHING, MODEL = "/v1/images/generations", "/v2/health/live", "dcgan"
CLIENTS = 64
SERVED = ("replica", "haproxy", "proxy", "controller")
PAUSE_MS = 500.0
"""Mean pause of a connection in the overload: 4 times 300 images a second need 600 connections
and those that wait.
"""
MEMORY_REQUESTS = 20_000
MEMORY_BOUND_MB = 30
"""An allocator's noise; a leak of 2 KB a request would be 40."""


def build_store(folder: Path) -> None:
    """A DCGAN's generator for 64x64 colour images, seeded, its batch norms settled so that the
    images have contrast.
    """
    torch.manual_seed(0)
    shape = (3, 64, 64)
    config = GANModelConfig(
        network="conv",
        latent=100,
        generator_widths=(512, 256, 128, 64),
        kernel=4,
        slope=0.2,
        generator_norm="batch",
    )
    generator = Generator(config, shape).train()
    for module in generator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean over all batches
    with torch.no_grad():
        for _ in range(10):
            generator(torch.rand(32, config.latent) * 2 - 1)
        before_tanh = generator.layers[:-1](torch.rand(32, config.latent) * 2 - 1)
        cast(torch.nn.ConvTranspose2d, generator.layers[-2]).weight.mul_(0.5 / before_tanh.std())
    values = {**asdict(config), "shape": list(shape)}
    modelstore.save_model(
        folder / MODEL, "gan", values, generator.state_dict(), "# untrained, for load\n"
    )


def images_in_turns(
    ours: Serving, plain: Serving, store: Path, turns: int, seconds: float
) -> dict[str, list]:
    """Bare loop, service, plain Serve; then again."""
    found: dict[str, list] = {"bare": [], "ours": [], "plain": []}
    for _ in range(turns):
        bare = ["tests.bench.rivals.bare_generator", str(store / MODEL), "--seconds", str(seconds)]
        found["bare"].append(run_measured(bare, threads=1, timeout_s=120))
        found["ours"].append(
            ours.load(IMAGES, connections=CLIENTS, seconds=2 * seconds, model=MODEL)
        )
        found["plain"].append(plain.load(IMAGES, connections=CLIENTS, seconds=seconds, model=MODEL))
    return found


def paced(ours: Serving, rate: float, seconds: float) -> Load:
    """CLIENTS connections whose pauses and answers add up to `rate` requests a second; the
    pauses are set by a short look.
    """
    pause_ms = 1e3 * CLIENTS / rate
    look = ours.load(
        IMAGES, connections=CLIENTS, seconds=seconds / 4, model=MODEL, pause_ms=pause_ms, count=True
    )
    answer_ms = 1e3 * CLIENTS / look.rate - pause_ms
    pause_ms = max(1.0, pause_ms - answer_ms)
    return ours.load(
        IMAGES, connections=CLIENTS, seconds=seconds, model=MODEL, pause_ms=pause_ms, count=True
    )


def overload(ours: Serving, peak: float, seconds: float) -> Load:
    connections = round(4 * peak * PAUSE_MS / 1e3) + Limits().max_in_flight
    return ours.load(
        IMAGES, connections=connections, seconds=seconds, model=MODEL, pause_ms=PAUSE_MS, count=True
    )


def memory_growth(ours: Serving, requests: int, seconds: float) -> tuple[float, int]:
    """(MB, images made)."""
    before, made = ours.memory_mb(), 0
    while made < requests:
        made += ours.load(IMAGES, connections=CLIENTS, seconds=seconds, model=MODEL).good
    return ours.memory_mb() - before, made


def row(name: str, loads: list[Load]) -> list[str]:
    spent = [
        Summary(tuple(load.cpu_ms(role) for load in loads))
        for role in ("replica", "haproxy", "proxy", "controller", "ray")
    ]
    rate = Summary(tuple(load.rate for load in loads))
    return [name, str(rate), *map(str, spent), f"{median(each.p50_ms for each in loads):.1f}",
            f"{median(each.p99_ms for each in loads):.1f}"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute: shows that it runs")
    quick = parser.parse_args().quick
    need_wrk()
    print(describe_machine(), flush=True)
    turns, seconds, requests = (1, 2.0, 1_500) if quick else (3, 6.0, MEMORY_REQUESTS)
    key = secrets.token_hex(24)
    with tempfile.TemporaryDirectory(prefix="genray-bench-") as folder:
        store, port = Path(folder), free_port()
        build_store(store)
        ours_command = [genray_command(), "serve", folder, "--port", "0"]
        plain_command = [
            sys.executable,
            "-m",
            "tests.bench.rivals.serve_plain",
            str(store / MODEL),
            "--port",
            str(port),
        ]
        with (
            serving(ours_command, r"^page +(http\S+)/$", key) as ours,
            serving(plain_command, r"^up at (http\S+)$") as plain,
        ):
            # warm: pools, the allocator
            ours.load(IMAGES, connections=CLIENTS, seconds=seconds, model=MODEL)
            ours.load(NOTHING, connections=CLIENTS, seconds=seconds / 2)
            found = images_in_turns(ours, plain, store, turns, seconds)
            nothing = [
                ours.load(NOTHING, connections=CLIENTS, seconds=seconds) for _ in range(turns)
            ]
            peak = median(load.rate for load in found["ours"])
            calm = paced(ours, 0.7 * peak, 4 * seconds)
            # Peak and overload in turns: other work on the machine slows both.
            tops, floods = [], []
            for _ in range(turns):
                tops.append(ours.load(IMAGES, connections=CLIENTS, seconds=seconds, model=MODEL))
                floods.append(overload(ours, peak, 2 * seconds))
                time.sleep(2)  # the crowd's connections are being closed
            growth, made = memory_growth(ours, requests, 2 * seconds)
    bare_ms = median(each["batch_ms"] for each in found["bare"])
    alone_ms = median(each["alone_ms"] for each in found["bare"])
    print_table(
        f"CPU ms an answer, by process (medians, spread of {turns} turns); latencies of {CLIENTS} "
        "connections in ms",
        [
            "",
            "answers/s",
            "replica",
            "HAProxy",
            "proxy actor",
            "controller",
            "rest of Ray",
            "p50",
            "p99",
        ],
        [
            row("an image, service", found["ours"]),
            row("an image, plain Ray Serve", found["plain"]),
            row("nothing, service", nothing),
            row("an image at 70%", [calm]),
            row("an image at 4 times (429 left out)", floods),
        ],
    )
    kept = median(flood.rate / top.rate for flood, top in zip(floods, tops))
    offered = (
        median((flood.good + flood.busy + flood.unclear) / flood.seconds for flood in floods) / peak
    )
    unclear = sum(flood.unclear for flood in floods) + calm.unclear
    of_bare = {
        name: bare_ms / median(load.cpu_ms(*SERVED) for load in found[name])
        for name in ("ours", "plain")
    }
    noop_ms = median(load.cpu_ms("replica", "haproxy") for load in nothing)
    print_table(
        "Against the goals",
        ["what", "measured", "goal"],
        [
            [
                f"images a CPU-second, of the bare loop's ({bare_ms:.2f} ms each; alone "
                f"{alone_ms:.2f})",
                f"{of_bare['ours']:.3f}",
                "≥ .60",
            ],
            ["… a plain Ray Serve deployment", f"{of_bare['plain']:.3f}", ""],
            ["CPU ms of a request for nothing, replica + HAProxy", f"{noop_ms:.3f}", "≤ .35"],
            [
                f"p99 over p50 at {calm.rate / peak:.0%} of capacity",
                f"{calm.p99_ms / calm.p50_ms:.2f}",
                "≤ 5",
            ],
            [
                f"throughput kept at {offered:.1f} times capacity, "
                f"{sum(each.busy for each in floods)} clean 429s, "
                f"{unclear} other",
                f"{kept:.3f}",
                "≥ .75",
            ],
            [f"memory over {made} images, MB", f"{growth:.1f}", f"≤ {MEMORY_BOUND_MB}"],
        ],
    )
    last_json_line(
        {
            "bench": "serve",
            "images_of_bare": of_bare["ours"],
            "noop_cpu_ms": noop_ms,
            "p99_over_p50": calm.p99_ms / calm.p50_ms,
            "overload_kept": kept,
            "memory_growth_mb": growth,
            "plain_of_bare": of_bare["plain"],
            "bare_ms": bare_ms,
            "overload_offered": offered,
            "unclear": unclear,
            "memory_requests": made,
        }
    )


if __name__ == "__main__":
    main()
