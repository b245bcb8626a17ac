"""Checks a cluster before a run starts on it: roles, versions, storage, clocks, and the
environment.

A small task on every machine returns what the machine has. The checks leave no files and no actors
behind. Each problem is reported in one line.
"""

import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import genray
from genray.distributed.calls import cause
from genray.errors import ConfigError, ResourceError
from genray.rl.config import DQNConfig
from genray.rl.env import load_factory
from genray.runs import storage

ANSWER_S = 180.0
"""Longest time that a machine may take to answer. A machine that has just joined the cluster first
starts a Python process, which takes 4 s, or up to a minute on a very busy machine.
"""
MOST_SKEW_S = 5.0
"""Largest difference between two clocks. With larger differences, logs and metrics of several
machines cannot be compared. S3 refuses requests if a clock is 15 minutes wrong.
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A machine's answer: its versions, its clock, and what it can read and load."""

    genray: str
    ray: str
    python: str
    time_s: float
    """The machine's clock, in seconds since 1970."""
    sees_storage: bool
    """Whether the machine can read the run's --out."""
    env_problem: str = ""
    """Why the machine cannot load the run's own environment (`--env module:factory`); "" if it
    can.
    """


def roles_needed(config: DQNConfig) -> dict[str, int]:
    """Return {custom resource of a role: number of a run's actors that need one unit of it}."""
    return {
        "genray_learner": config.learner.learners,
        "genray_replay": config.replay.shards,
        "genray_collector": config.collect.collectors,
    }


def missing_roles(needed: dict[str, int], offered: dict[str, float]) -> str:
    """Return a text such as "genray_replay (2 needed, 0 offered)"; "" if no role is missing.

    `offered` are the resources of the cluster. If it has CPUs but no roles, every actor may run on
    every machine, so no role is missing. A cluster that consists only of the head of cluster.yaml
    has neither CPUs nor roles, so all roles are missing.
    """
    if not any(role in offered for role in needed) and offered.get("CPU", 0) > 0:
        return ""
    lacking = {
        role: offered.get(role, 0) for role, count in needed.items() if offered.get(role, 0) < count
    }
    return ", ".join(
        f"{role} ({needed[role]} needed, {offer:.0f} offered)" for role, offer in lacking.items()
    )


def await_roles(
    config: DQNConfig, address: str, wait_s: float, say: Callable[[str], None] = print
) -> None:
    """Wait until the cluster has a unit of its role for every actor. Meanwhile the autoscaler is
    asked for the missing units.

    Raises ResourceError, which names the missing roles and their numbers, after `wait_s` seconds.
    """
    needed = roles_needed(config)
    if not (missing := missing_roles(needed, ray.cluster_resources())):
        return
    from ray.autoscaler.sdk import request_resources

    say(f"waiting for machines with {missing}")
    request_resources(bundles=[{role: 1} for role, count in needed.items() for _ in range(count)])
    try:
        stop = time.monotonic() + wait_s
        while missing and time.monotonic() < stop:
            time.sleep(0.5)
            missing = missing_roles(needed, ray.cluster_resources())
    finally:
        request_resources(bundles=[])  # from now on, the actors' own requests keep the machines
    if missing:
        raise ResourceError(
            f"--address {address}: the cluster lacks {missing} after {wait_s:.0f} s; start "
            "machines of these roles (see "
            "cluster.yaml), or ask for fewer --collectors, --shards"
        )


def check_machines(place: storage.Place, address: str, env: str = "") -> None:
    """Raise ResourceError for the first problem that keeps a machine from taking part in a run.

    A machine may have another version of Ray, Python or genray, a clock that differs, or no answer,
    or it cannot load `env` (`module:factory` of a user's environment) or read `place`.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    mark = f".seen-{os.urandom(6).hex()}"
    with _marked(place, mark):
        # Start a task on every machine, all at the same time.
        question = ray.remote(_answer)
        asked = {}
        for node in nodes:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[node["NodeManagerAddress"]] = question.options(
                num_cpus=0, max_retries=0, scheduling_strategy=here
            ).remote(str(place), mark, env)
        # Collect the answers. Note why a machine gives none.
        start = time.time()
        answers, late = {}, {}
        for machine, reference in asked.items():
            try:
                answers[machine] = ray.get(reference, timeout=ANSWER_S)
            except GetTimeoutError:
                late[machine] = f"did not answer within {ANSWER_S:.0f} s"
            except RayError as error:
                late[machine] = (
                    f"cannot load genray ({cause(error)}); install the same genray there"
                )
        end = time.time()
    # Compare the answers with this process's own versions and clock.
    mine = _answer(str(place), "")
    if wrong := next(iter(problems(mine, answers, late, start, end, place)), None):
        raise ResourceError(f"--address {address}: {wrong}")


def problems(
    mine: Answer,
    answers: dict[str, Answer],
    late: dict[str, str],
    start: float,
    end: float,
    place: storage.Place,
) -> Iterable[str]:
    """Yield one line per problem.

    `mine` is this process's own answer. `late` contains, for each machine without an answer, the
    reason. The other machines answered between `start` and `end`, by this process's clock.
    """
    yield from (f"machine {machine} {reason}" for machine, reason in late.items())
    for what in ("ray", "python", "genray"):
        for machine, answer in answers.items():
            theirs, ours = getattr(answer, what), getattr(mine, what)
            if theirs != ours:
                yield (
                    f"machine {machine} runs {what} {theirs}, this one {ours}; install the same on "
                    "every machine"
                )
    for machine, answer in answers.items():
        # A correct clock gives a time between `start` and `end`. A difference is measured from the
        # nearer end of this interval.
        ahead = answer.time_s - end if answer.time_s > end else answer.time_s - start
        if abs(ahead) > MOST_SKEW_S and not start <= answer.time_s <= end:
            word = "ahead of" if ahead > 0 else "behind"
            yield (
                f"the clock of machine {machine} is {abs(ahead):.0f} s {word} this one's (at most "
                f"{MOST_SKEW_S:.0f} s); "
                "have NTP set both, e.g. with chrony"
            )
    for machine, answer in answers.items():
        if answer.env_problem:
            yield (
                f"machine {machine} cannot load the environment ({answer.env_problem}); install "
                "its "
                "module on every machine"
            )
    if blind := [machine for machine, answer in answers.items() if not answer.sees_storage]:
        yield (
            f"{', '.join(blind)} cannot see {place}; choose an --out that every machine sees: a "
            "shared mount, or s3://…"
        )


def _answer(place: str, mark: str, env: str = "") -> Answer:
    target = storage.child(storage.as_place(place), mark)
    try:
        seen = storage.read_file(target)[0] == mark.encode() if mark else True
    except OSError:
        seen = False
    return Answer(
        genray=f"{genray.__version__} (code {fingerprint()})",
        ray=ray.__version__,
        python=platform.python_version(),
        time_s=time.time(),
        sees_storage=seen,
        env_problem=_env_problem(env) if env else "",
    )


def _env_problem(env: str) -> str:
    try:
        load_factory(env)
    except ConfigError as error:
        return str(error)
    return ""


class _marked:
    """Context manager that writes the file `name` into `place`, and removes it after the block."""

    def __init__(self, place: storage.Place, name: str):
        self._file, self._content = storage.child(place, name), name.encode()

    def __enter__(self) -> None:
        if isinstance(self._file, Path):
            self._file.write_bytes(self._content)
        else:
            storage.write_bytes(self._file, self._content)

    def __exit__(self, *_: Any) -> None:
        storage.remove_file(self._file)


@cache
def fingerprint() -> str:
    """Return eight hexadecimal digits of a hash of genray's source files. They show whether two
    machines with the same version run the same code.
    """
    root = Path(genray.__file__).parent
    total = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        total.update(os.fsencode(file.relative_to(root)) + b"\0" + file.read_bytes())
    return total.hexdigest()[:8]
