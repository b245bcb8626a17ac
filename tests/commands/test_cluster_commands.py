"""Tests the commands for clusters without a cluster: jobs, roles, differences between machines."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from genray.commands.cluster import cluster_lines, job_words, run_lines
from genray.commands.train_dqn import if_head_is_lost
from genray.distributed.preflight import Answer, fingerprint, missing_roles, problems
from genray.errors import ConfigError
from genray.rl.config import RunConfig

NEEDED = {"genray_learner": 1, "genray_replay": 2, "genray_collector": 4}
MINE = Answer(
    genray="0.1.0 (code 12345678)", ray="2.60.0", python="3.11.7", time_s=100.0, sees_storage=True
)


def test_job_words_adds_the_address_of_the_cluster():
    words = ["train", "dqn", "--preset", "catch", "--out", "/shared/x"]
    assert job_words(words, "genray submit") == [*words, "--address", "auto"]
    assert job_words([*words, "--local"], "genray submit") == [*words, "--local"]
    assert job_words(["train", "vae", "--out", "s3://b/x"], "genray submit") == [
        "train",
        "vae",
        "--out",
        "s3://b/x",
    ]
    assert job_words(["sample", "/shared/m"], "genray submit") == ["sample", "/shared/m"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "name a genray command after --"),
        (["trian", "dqn"], "trian dqn: no such command"),
        (["submit", "--", "train"], "no such command"),
        (["train", "dqn"], "add --out /SHARED/NAME"),
        (
            ["train", "dqn", "--out", "runs/x"],
            "--out runs/x: a job cannot read this machine's folders",
        ),
        (
            ["train", "dqn", "--resume", "runs/x"],
            "--resume runs/x: a job cannot read this machine's folders",
        ),
    ],
)
def test_job_words_refuses_a_command_that_cannot_work(words, complaint):
    with pytest.raises(ConfigError, match=complaint):
        job_words(words, "genray submit")


def test_submit_without_a_cluster_ends_in_one_line():
    """The command runs in a new process, because Ray decides once in each process whether it sends
    a token.
    """
    words = [
        "submit",
        "--address",
        "http://127.0.0.1:9",
        "--",
        "train",
        "dqn",
        "--out",
        "/shared/x",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "genray", *words], capture_output=True, text=True, timeout=100
    )
    shown = done.stderr.splitlines()
    assert (
        done.returncode == 2 and len(shown) == 1 and "--address http://127.0.0.1:9" in shown[0]
    ), done.stderr


def test_missing_roles_are_named_with_their_counts():
    offered = {"CPU": 8.0, "genray_learner": 1.0, "genray_replay": 1.0}
    missing = missing_roles(NEEDED, offered)
    assert missing == "genray_replay (2 needed, 1 offered), genray_collector (4 needed, 0 offered)"
    assert not missing_roles(NEEDED, {"CPU": 8.0}), (
        "a laptop has no roles: everything runs anywhere"
    )
    assert missing_roles(NEEDED, {"CPU": 0.0}), "a head alone has no roles yet"
    assert not missing_roles(NEEDED, {role: 9.0 for role in NEEDED})


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (replace(MINE, ray="2.59.0"), "machine b runs ray 2.59.0, this one 2.60.0"),
        (replace(MINE, python="3.11.9"), "machine b runs python 3.11.9, this one 3.11.7"),
        (
            replace(MINE, genray="0.1.0 (code 87654321)"),
            "machine b runs genray 0.1.0 (code 87654321), this one 0.1.0",
        ),
        (replace(MINE, time_s=190.0), "the clock of machine b is 89 s ahead of this one's"),
        (replace(MINE, time_s=40.0), "the clock of machine b is 60 s behind this one's"),
        (
            replace(MINE, env_problem="--env a:B: no a"),
            "machine b cannot load the environment (--env a:B: no a)",
        ),
        (
            replace(MINE, sees_storage=False),
            "b cannot see /root/x; choose an --out that every machine sees",
        ),
    ],
)
def test_each_difference_between_machines_is_one_line(answer, complaint):
    answers = {"a": MINE, "b": answer}
    found = list(problems(MINE, answers, {}, start=100.0, end=101.0, place="/root/x"))
    assert len(found) == 1 and found[0].startswith(complaint), found


def test_problems_does_not_report_slow_answers_as_skewed_clocks():
    """Each machine reported its clock at some time between the request and the answer."""
    answers = {"a": replace(MINE, time_s=130.0), "b": replace(MINE, time_s=99.0)}
    assert not list(problems(MINE, answers, {}, start=100.0, end=140.0, place="/x"))
    assert list(problems(MINE, {}, {"c": "did not answer"}, start=0, end=0, place="/x")) == [
        "machine c did not answer"
    ]


def test_fingerprint_depends_on_the_code():
    assert len(fingerprint()) == 8 and fingerprint() == fingerprint()


def test_cluster_lines_show_roles_and_lost_machines():
    def node(address: str, alive: bool = True, **resources: float) -> dict:
        return {
            "Alive": alive,
            "NodeManagerAddress": address,
            "Resources": resources,
            "DeathReasonMessage": "it was cut",
        }

    nodes = [
        node("10.0.0.10"),
        node("10.0.0.11", genray_learner=1.0),
        node("10.0.0.12", genray_replay=2.0),
        node("10.0.0.13", genray_replay=2.0),
        node("10.0.0.13", alive=False),
        node("10.0.0.14", alive=False),
    ]
    shown = "\n".join(
        cluster_lines(nodes, {"genray_replay": 1.0, "genray_learner": 0.0}, "10.0.0.10:6379")
    )
    lines = [line.split() for line in shown.splitlines()]
    assert "4 machines up, 2 lost" in shown
    assert (
        ["learner", "1", "1", "1"] in lines
        and ["replay", "2", "4", "3"] in lines
        and ["no", "role", "1"] in lines
    )
    assert (
        "lost: 10.0.0.13 (it was cut; back since)" in shown
        and "lost: 10.0.0.14 (it was cut)" in shown
    )


def test_run_lines_take_each_value_from_the_newest_line_that_has_it(tmp_path):
    lines = [
        {
            "step": 100,
            "seconds": 1,
            "agent_steps_per_s": 50.0,
            "updates_per_s": 7.0,
            "lost_transitions": 0,
            "restarts": 0,
        },
        {
            "step": 300,
            "seconds": 2,
            "agent_steps_per_s": 90.0,
            "weight_lag_updates": 12.0,
            "lost_transitions": 31,
        },
    ]
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "metrics.jsonl").write_text(text + '\n{"step": 9999, "sec')
    head, shown = run_lines(str(tmp_path))
    assert "step 300" in head and "s ago" in head
    assert (
        "agent steps/s 90" in shown
        and "updates/s 7.0" in shown
        and "weight lag 12 updates" in shown
    )
    assert "transitions lost 31" in shown and "restarts 0" in shown
    assert "no metrics.jsonl yet" in run_lines(str(tmp_path / "none"))[0]
    assert "step 300" in run_lines(f"file://{tmp_path}")[0]


@pytest.mark.parametrize(
    ("periods", "start", "said"),
    [
        (
            (0, 0),
            None,
            "the run is lost: it writes no checkpoint before its end (--checkpoint-every N",
        ),
        ((0, 900), None, "the run is lost"),  # longer than the run
        ((0, 40), None, "continue with: THIS (its first checkpoint comes at step 40)"),
        ((30, 40), None, "comes at step 30)"),  # an evaluation writes one, too
        ((0, 0), 50, "continue with: THIS"),
    ],
)
def test_if_head_is_lost_names_the_first_checkpoint(periods, start, said):
    settings = RunConfig(steps=100, evaluate_every=periods[0], checkpoint_every=periods[1])
    assert said in if_head_is_lost(settings, start, "THIS")
