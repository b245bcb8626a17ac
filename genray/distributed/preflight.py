"""What is wrong with a cluster, before a run begins on it: roles, versions, storage, clocks. One
line each.

Every machine is asked by a small task that runs on it. Nothing is left there, and nothing of the
run exists yet.
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
"""A machine that has just joined starts a Python process for the question: 4 s, a minute where
it is very busy.
"""
MOST_SKEW_S = 5.0
"""S3 refuses requests that are 15 minutes off; logs and metrics of machines that are 5 s apart
cannot be read together.
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a machine says of itself."""

    genray: str
    ray: str
    python: str
    time_s: float
    sees_storage: bool
    env_problem: str = ""
    """Why the run's own environment (`--env module:factory`) cannot be loaded there; "" if it
    can.
    """


def roles_needed(config: DQNConfig) -> dict[str, int]:
    return {
        "genray_learner": config.learner.learners,
        "genray_replay": config.replay.shards,
        "genray_collector": config.collect.collectors,
    }


def missing_roles(needed: dict[str, int], offered: dict[str, float]) -> str:
    """ "genray_replay (2 needed, 0 offered)" and so on; empty when nothing is missing or the
    cluster knows no roles.

    A cluster without any role and with processors is one where everything runs anywhere. A head
    alone has neither.
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
    """Wait until the cluster offers a place for every actor; an autoscaler is asked for what is
    missing.

    Raises ResourceError, saying which roles and how many, when they do not come within `wait_s`.
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
        request_resources(bundles=[])  # the actors themselves hold the machines from here on
    if missing:
        raise ResourceError(
            f"--address {address}: the cluster lacks {missing} after {wait_s:.0f} s; start "
            "machines of these roles (see "
            "cluster.yaml), or ask for fewer --collectors, --shards"
        )


def check_machines(place: storage.Place, address: str, env: str = "") -> None:
    """Raise ResourceError for the first machine that cannot take part.

    It runs another version, cannot see `place`, has another time, or cannot load `env`, the name
    of an own environment.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    mark = f".seen-{os.urandom(6).hex()}"
    with _marked(place, mark):
        question = ray.remote(_answer)
        asked = {}
        for node in nodes:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[node["NodeManagerAddress"]] = question.options(
                num_cpus=0, max_retries=0, scheduling_strategy=here
            ).remote(str(place), mark, env)
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
    """One line a problem. `mine` is what this process says; the others spoke between `start` and
    `end`, by its clock.
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
    """A file at `place` for the time of a block."""

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
    """Eight digits of a hash over genray's own source: two checkouts of one version differ in
    it.
    """
    root = Path(genray.__file__).parent
    total = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        total.update(os.fsencode(file.relative_to(root)) + b"\0" + file.read_bytes())
    return total.hexdigest()[:8]
