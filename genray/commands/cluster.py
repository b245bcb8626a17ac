"""`genray submit` runs a command as a job on a Ray cluster; `genray status` shows the cluster."""

import asyncio
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from genray.console import shell_command
from genray.errors import ConfigError, ResourceError, RunFault, require
from genray.options import option_value, parse
from genray.runs import storage
from genray.runs.rundir import last_metrics

DASHBOARD = "http://127.0.0.1:8265"
OUT_KEY = "genray_out"


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    """Run a genray command as a Ray job: genray submit [options] -- train dqn --preset catch --out
    /shared/catch
    """

    address: str = ""
    """The cluster's dashboard, http://HOST:PORT. Default: RAY_API_SERVER_ADDRESS, or this machine's
    dashboard.
    """
    wait: bool = True
    """Show the job's output until it ends; --no-wait prints its name and returns."""


NO_CLUSTER = "no Ray cluster answers there"


@dataclass(frozen=True, kw_only=True)
class StatusConfig:
    """Show a cluster's roles, and the rates, lag and losses of its runs: genray status [RUN …]"""

    address: str = "auto"
    """The cluster: `auto` or HOST:PORT."""


def submit(argv: list[str], prog: str) -> int:
    """Run `genray submit`; returns the exit status."""
    mark = argv.index("--") if "--" in argv else len(argv)
    options = parse(SubmitConfig, argv[:mark], prog)
    words = job_words(argv[mark + 1 :], prog)
    client, address = _jobs(options.address)
    out = option_value(words, "--out") or option_value(words, "--resume") or ""
    job = client.submit_job(
        entrypoint=shlex.join(["genray", *words]), metadata={OUT_KEY: out} if out else {}
    )
    print(f"{job} at {address}: {shlex.join(words)}", flush=True)
    if options.wait:
        _follow(client, job, words, out)
    print(job)
    return 0


def job_words(words: list[str], prog: str) -> list[str]:
    """Check the command of a job before it is sent, and return the words to send.

    `--address auto`, the job's own cluster, is added to `train dqn` and to a training with
    --workers, unless the command has --address or --local. Raises ConfigError for an unknown
    command, or a training whose --out is not an absolute path or a URL.
    """
    from genray.cli import COMMANDS

    example = f"{prog} -- train dqn --preset catch --out /shared/catch"
    require(bool(words), f"{prog}: name a genray command after --, e.g. {example}")
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    if name not in COMMANDS or name == "submit":
        raise ConfigError(
            f"{prog} -- {' '.join(words[:2])}: no such command of genray for a job; e.g. {example}"
        )
    if not name.startswith("train"):
        return words
    option = "--out" if option_value(words, "--out") else "--resume"
    out = option_value(words, option)
    require(
        out is not None,
        f"{prog} -- {name}: a job cannot write to this machine's folders; add --out "
        "/SHARED/NAME or s3://BUCKET/NAME",
    )
    if not storage.is_url(str(out)) and not os.path.isabs(str(out)):
        raise ConfigError(
            f"{option} {out}: a job cannot read this machine's folders; give an absolute path, "
            f"/SHARED/{out}, or a URL"
        )
    joins = name == "train dqn" or option_value(words, "--workers") is not None
    own = "--local" in words or option_value(words, "--address") is not None
    return [*words, "--address", "auto"] if joins and not own else words


def _jobs(address: str) -> tuple[Any, str]:
    """Connect to the cluster's job service. Returns (the client, the address).

    Raises ResourceError if no job service answers, or it denies access.
    """
    from ray.job_submission import JobSubmissionClient

    place = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DASHBOARD
    if "://" not in place:
        place = f"http://{place}"
    try:
        client = JobSubmissionClient(place)
        client.list_jobs()
        return client, place
    except Exception as error:  # connection, token and version errors have no common class
        reason = _first_line(error)
        if "auth" in type(error).__name__.lower() or "token" in reason.lower():
            reason = (
                "the cluster refuses this machine's token; copy the head's ~/.ray/auth_token here, "
                "or set RAY_AUTH_TOKEN"
            )
        else:
            reason += (
                "; on the cluster's head, or with `ray dashboard cluster.yaml` running, leave "
                "--address out"
            )
        raise ResourceError(f"--address {place}: {reason}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _follow(client: Any, job: str, words: list[str], out: str) -> None:
    """Show the job's output. Returns when the job has succeeded.

    Raises RunFault if the job failed or the connection was lost. `words`: the job's command; `out`:
    its run directory.
    """
    # The command that continues a training, for messages.
    again = shell_command("genray", "submit", "--", "train", *words[1:2], "--resume", out)
    resume = again if words[0] == "train" else ""
    advice = f"; continue with: {resume}" if resume else ""

    async def tail() -> None:
        async for lines in client.tail_job_logs(job):
            print(lines, end="", flush=True)

    try:
        asyncio.run(tail())
        status, about = client.get_job_status(job), client.get_job_info(job)
    except KeyboardInterrupt:
        print(f"\n{job} continues; stop it with: ray job stop {job}")
        raise
    except Exception as error:
        raise RunFault(
            f"{job}: the connection to the cluster was lost ({_first_line(error)}){advice}"
        ) from error
    if status != "SUCCEEDED":
        # Exit status 2: the command was refused before it made anything that could be continued.
        advice = "" if getattr(about, "driver_exit_code", None) == 2 else advice
        raise RunFault(
            f"{job} {status.lower()}: "
            f"{_first_line(Exception(about.message or 'no reason given'))}{advice}"
        )


# -- status ----------------------------------------------------------------------------------------


def status(argv: list[str], prog: str) -> int:
    """Run `genray status`; returns the exit status."""
    runs = []
    while argv and not argv[0].startswith("-"):
        runs.append(argv.pop(0))
    options = parse(StatusConfig, argv, prog)
    import ray

    from genray.distributed.session import ray_session

    try:
        with ray_session(options.address):
            nodes, free = ray.nodes(), ray.available_resources()
            dashboard = ray.get_runtime_context().gcs_address
            print("\n".join(cluster_lines(nodes, free, dashboard)))
            runs += [run for run in _runs_of_jobs() if run not in runs]
    except ResourceError as error:
        # The advice at the end of the message is for a training.
        if NO_CLUSTER not in str(error):
            raise
        message = f"--address {options.address}: {NO_CLUSTER}"
        if not runs:
            raise ResourceError(
                f"{message}; start one (ray up cluster.yaml), or name run directories: genray "
                "status RUN …"
            ) from error
        print(message)
    for run in runs:
        print("\n".join(run_lines(run)))
    if not runs:
        print(
            "no run was submitted as a job; name run directories to see them: genray status RUN …"
        )
    return 0


def cluster_lines(nodes: list[dict[str, Any]], free: dict[str, float], address: str) -> list[str]:
    """Format a table of roles, and a line for each machine that has left the cluster.

    The column "places" is the amount of the role's Ray resource that the machines offer, and
    "taken" is the amount in use. `nodes`: the result of `ray.nodes()`. `free`: the result of
    `ray.available_resources()`.
    """
    up, gone = (
        [node for node in nodes if node["Alive"]],
        [node for node in nodes if not node["Alive"]],
    )
    lines = [f"cluster {address}: {len(up)} machines up, {len(gone)} lost since it started"]
    lines.append(f"  {'role':<12} {'machines':>8} {'places':>8} {'taken':>8}")
    roles = sorted(
        {name for node in up for name in node["Resources"] if name.startswith("genray_")}
    )
    for role in roles:
        offers = [node["Resources"].get(role, 0) for node in up]
        taken = sum(offers) - free.get(role, 0)
        lines.append(
            f"  {role.removeprefix('genray_'):<12} {sum(map(bool, offers)):>8} {sum(offers):>8.0f} "
            f"{taken:>8.0f}"
        )
    if plain := sum(not any(role in node["Resources"] for role in roles) for node in up):
        lines.append(f"  {'no role':<12} {plain:>8}")
    alive = {node["NodeManagerAddress"] for node in up}
    for node in gone:
        back = "; back since" if node["NodeManagerAddress"] in alive else ""
        lines.append(
            f"  lost: {node['NodeManagerAddress']} "
            f"({node.get('DeathReasonMessage') or 'unknown reason'}{back})"
        )
    return lines


def run_lines(run: str) -> list[str]:
    """Describe the progress of a run by the last lines of its metrics."""
    try:
        last, written = last_metrics(storage.as_place(run))
    except OSError:
        return [f"run {run}: no metrics.jsonl yet, or this machine cannot read it"]
    ago = f"{max(0.0, time.time() - written):.0f} s ago" if written else ""
    shown = [
        f"{title} {form.format(last[name])}"
        for name, title, form in (
            ("agent_steps_per_s", "agent steps/s", "{:,.0f}"),
            ("updates_per_s", "updates/s", "{:.1f}"),
            ("samples_per_insert", "samples/insert", "{:.2f}"),
            ("weight_lag_updates", "weight lag", "{:.0f} updates"),
            ("replay_size", "replay", "{:,}"),
            ("episode_return", "return", "{:,.1f}"),
            ("lost_transitions", "transitions lost", "{:,}"),
            ("restarts", "restarts", "{}"),
        )
        if last.get(name) is not None
    ]
    return [f"run {run}: step {last.get('step', 0):,} · {ago}", "  " + " · ".join(shown)]


def _runs_of_jobs() -> Iterator[str]:
    """Yield the run directories of submitted jobs, newest first; yields nothing without a job
    service.
    """
    # Ray's public API does not provide the address of the dashboard.
    from ray._private.worker import global_worker

    url = getattr(global_worker.node, "address_info", {}).get("webui_url")
    if not url:
        return
    try:
        client, _ = _jobs(url)
        jobs = client.list_jobs()
    except ResourceError:
        return
    for job in sorted(jobs, key=lambda job: job.start_time or 0, reverse=True):
        if out := (job.metadata or {}).get(OUT_KEY):
            yield out
