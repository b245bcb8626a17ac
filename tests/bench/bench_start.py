"""The start of `genray serve`, and the memory of its replica. `python -m tests.bench.bench_start
[--quick]`

A directory of seven tiny models is served several times, one after the other. Figures:

* seconds from the command to the line that says that the service answers;
* CPU seconds of all its processes until then;
* memory of the replica: RSS counts every page that it maps, also of PyTorch's libraries for GPUs;
  PSS divides pages by the number of processes that share them; USS are pages of its own.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import psutil

from genray import cli
from tests.bench.common import Summary, describe_machine, last_json_line, print_table
from tests.bench.serve_load import Serving, genray_command, serving
from tests.serve.conftest import make_policy, make_style
from tests.serve.real import command_of

TRAINED = (
    ("gan", "digits-gan", "gan_digits"),
    ("vae", "digits-vae", "vae_digits"),
    ("ae", "digits-ae", "ae_digits"),
    ("ae", "digits-conv", "conv_digits"),
    ("classifier", "digits", "classifier_digits"),
)
SETTLE_S = 3.0
"""The replica's memory is read so many seconds after the start."""


def build_models(folder: Path) -> None:
    """Make seven models: five trained for a few steps, an untrained policy and a style network."""
    for family, name, preset in TRAINED:
        run = folder / "run"
        words = ["--preset", preset, "--steps", "25", "--out", str(run)]
        assert cli.main(["train", family, *words]) == 0
        shutil.move(run / "model", folder / name)
        shutil.rmtree(run)
    make_policy(folder / "road-runner")
    make_style(folder / "waves")


def replica_mb(service: Serving) -> tuple[float, float, float]:
    """Return (RSS, PSS, USS) of the replica in MB."""
    family = psutil.Process(service.process.pid).children(recursive=True)
    (replica,) = [each for each in family if "ServeReplica:" in command_of(each)]
    found = replica.memory_full_info()
    return found.rss / 2**20, found.pss / 2**20, found.uss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one start")
    starts = 1 if parser.parse_args().quick else 3
    print(describe_machine(), flush=True)
    seconds, cpu_s, memory, load = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="genray-bench-") as folder:
        build_models(Path(folder))
        for _ in range(starts):
            load.append(os.getloadavg()[0])
            begin = time.monotonic()
            with serving(
                [genray_command(), "serve", folder, "--port", "0"], "^(Ctrl-C)"
            ) as service:
                seconds.append(time.monotonic() - begin)
                cpu_s.append(sum(service.cpu_s().values()))
                time.sleep(SETTLE_S)
                memory.append(replica_mb(service))
    rss, pss, uss = (Summary(tuple(each)) for each in zip(*memory))
    print_table(
        f"Starts of genray serve with seven tiny models ({starts} starts; load average before: "
        f"{', '.join(f'{each:.1f}' for each in load)})",
        ["what", "measured", "goal on 2 quiet cores"],
        [
            ["seconds until it answers", str(Summary(tuple(seconds))), "≤ 12"],
            ["CPU seconds of all processes", str(Summary(tuple(cpu_s))), ""],
            ["replica: RSS, MB", str(rss), "≤ 600"],
            ["replica: PSS, MB", str(pss), ""],
            ["replica: USS, MB", str(uss), ""],
        ],
    )
    last_json_line(
        {
            "bench": "start",
            "seconds": min(seconds),
            "cpu_s": min(cpu_s),
            "rss_mb": rss.median,
            "pss_mb": pss.median,
            "uss_mb": uss.median,
            "load": load,
        }
    )


if __name__ == "__main__":
    main()
