"""The report's page and files, from rows with known answers: every shape of sweep gives a page
that makes sense.
"""

import csv
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from genray.errors import CheckpointError, RunFault
from tests.tuning.report.report_rows import row, study_rows, write_sweep
from tuning.report.comparison import Comparison
from tuning.report.report import write_report
from tuning.report.summary import summary
from tuning.report.text import number
from tuning.trials import TrialRow

VOID = {"meta", "br", "img", "link", "input", "hr"}


def measured(sweep: Path, row: TrialRow) -> dict[str, float]:
    """Test figures by a rule: a tenth above validation."""
    assert row.phase != "search" and row.best is not None
    return {"loss": row.best + 0.1, "other": 1.0}


def nothing(sweep: Path, row: TrialRow) -> dict[str, float]:
    return {}


class Page(HTMLParser):
    """Reads a page and complains of what is not well-formed, of repeated identifiers, and of
    anything from elsewhere.
    """

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.identifiers: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.identifiers) == len(set(self.identifiers))
        for reference in self.references:
            assert reference.startswith(("#", "data:image/png;base64,")) or re.fullmatch(
                r"[a-z_]+\.csv", reference
            ), reference
            assert not reference.startswith("#") or reference[1:] in self.identifiers, reference

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.identifiers.append(value)
            if name in ("href", "src", "xlink:href"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value or "")
            assert not name.startswith("on")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(folder: Path, rows: Sequence[TrialRow], measure=nothing) -> tuple[Page, Path]:
    path = write_report(write_sweep(folder / "sweep", rows), measure=measure)
    text = path.read_text()
    assert "http" not in text and "<script" not in text and "@import" not in text
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).lower().replace(
        "loss is nan", ""
    )
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    return Page(text), path.parent


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_a_whole_comparison(tmp_path: Path):
    rows = study_rows(trials=12, seeds=5, arms=("sgd", "adam", "rmsprop"))
    page, folder = report(tmp_path, rows, measured)
    for section in (
        "summary",
        "arms",
        "learning-rates",
        "best-so-far",
        "curves",
        "profile",
        "parameters",
        "limits",
        "trials",
    ):
        assert section in page.identifiers
    # both splits; four charts of an arm each; parallel coordinates
    assert page.tags.count("svg") == 2 + 4 * 3 + 3
    lines = table(folder, "arms")
    best = min(
        lines, key=lambda line: float(line["best_median"]) if line["phase"] == "tuned" else math.inf
    )["arm"]
    assert [(line["arm"], line["phase"]) for line in lines[:2]] == [
        (best, "default"),
        (best, "tuned"),
    ]
    assert f"{best}, tuned: median" in page.text
    for line in lines:
        mine = [each for each in rows if (each.arm, each.phase) == (line["arm"], line["phase"])]
        best = [
            math.inf if each.best is None or each.status != "done" else each.best for each in mine
        ]
        assert float(line["best_median"]) == pytest.approx(np.median(best))
        assert float(line["test_median"]) == pytest.approx(np.median(best) + 0.1)
        assert int(line["runs"]) == 5 and int(line["trials"]) == (
            12 if line["phase"] == "tuned" else 0
        )
    from pyarrow import parquet

    assert parquet.read_table(folder / "arms.parquet").num_rows == 6
    assert {"trial", "loss", "other"} == set(table(folder, "test")[0])
    assert len(table(folder, "learning_rates")) == 36 and len(table(folder, "best_so_far")) == 36
    with Image.open(folder / "arms-validation.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100


def test_the_test_split_is_opened_once_and_only_for_finished_comparison_runs(tmp_path: Path):
    asked: list[str] = []

    def measure(sweep: Path, row: TrialRow) -> dict[str, float]:
        asked.append(row.trial)
        if row.trial.startswith("0005"):
            raise RunFault("its checkpoint is gone")
        return {"loss": 1.0}

    rows = [
        row("a", "default", 1, 2.0, 0),
        row("a", "search", 0, 1.0, 1),
        row("a", "tuned", 7, 1.5, 2),
        row("a", "tuned", 8, 1.5, 3, status="diverged"),
        row("a", "tuned", 9, 1.5, 4, status="running"),
        row("a", "tuned", 10, 1.5, 5),
        row("a", "tuned", 11, None, 6, status="failed"),
    ]
    _, folder = report(tmp_path, rows, measure)
    assert [name[:4] for name in asked] == ["0000", "0002", "0005"]
    asked.clear()
    report(tmp_path, rows, measure)
    # what failed is tried again, what is known is not
    assert [name[:4] for name in asked] == ["0005"]
    asked.clear()
    report(tmp_path, [row("a", "default", 1, 1.9, 0), *rows[1:]], measure)
    # the trial went on since: other weights
    assert [name[:4] for name in asked] == ["0000", "0005"]
    assert {each["trial"] for each in table(folder, "test")} == {rows[0].trial, rows[2].trial}


def test_accidents_are_shown_and_count_as_worst(tmp_path: Path):
    rows = [row("good", "default", seed, 2.0 + seed, seed) for seed in range(3)]
    rows += [
        row(
            "wild",
            "default",
            seed,
            1.0,
            10 + seed,
            status="diverged",
            error="RunFault: loss is inf",
        )
        for seed in (0, 1)
    ]
    rows += [row("wild", "default", 2, 1.0, 12)]
    rows += [
        row(
            "broken",
            "default",
            seed,
            None,
            20 + seed,
            status="failed",
            error="OSError: <disk> full",
        )
        for seed in (0, 1, 2)
    ]
    rows += [row("late", "default", 0, 1.0, 30, status="running")]
    page, folder = report(tmp_path, rows)
    lines = {line["arm"]: line for line in table(folder, "arms")}
    assert float(lines["good"]["best_median"]) == 3.0
    assert math.isinf(float(lines["wild"]["best_median"])) and lines["wild"]["diverged"] == "2"
    assert (
        lines["broken"]["failed"] == "3"
        and lines["late"]["running"] == "1"
        and lines["late"]["runs"] == "0"
    )
    assert lines["wild"]["missed"] == "2"  # the target is 3.0, the worst median that is finite
    assert "OSError: <disk> full" in page.text and "2 trials diverged (wild 2)" in page.text
    assert "3 failed with an error" in page.text and "1 had not ended" in page.text
    assert dict(summary(Comparison(rows)))["Best arm"].startswith(
        "good, untuned: median 3 (2 to 4)"
    )


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "No trial of this sweep has begun"),
        ([row()], "Best of 1 search trial: 1"),
        ([row(best=2.0), row(best=1.0, number=1)], "Best of 2 search trials: 1"),
        (
            [row(best=None, status="diverged"), row(best=None, status="failed", number=1)],
            "No trial ended with a finite figure",
        ),
        ([row(best=None, status="running", steps=0, seconds=0.0)], "1 had not ended"),
        (
            [row("a", "search", 0, 3.0), row("b", "search", 0, 2.0, 1)],
            "b, by the best of 2 search trials: 2",
        ),
        (
            [
                row("a", "search", 0, None, status="diverged"),
                row("b", "search", 0, None, 1, status="diverged"),
            ],
            "None: ",
        ),
        (
            [
                row("a", "default", 0, None, status="diverged"),
                row("b", "default", 0, None, 1, status="diverged"),
            ],
            "None: ",
        ),
        ([row("a", "tuned", 0, 3.0), row("b", "tuned", 0, 2.0, 1)], "There are no untuned runs"),
        (
            [row("a", "default", 0, 0.5, mode="max"), row("b", "default", 0, 0.7, 1, mode="max")],
            "b, untuned: median 0.7",
        ),
        (
            [
                row(best=0.0),
                row(best=0.0, number=1),
                row(best=-1e30, number=2),
                row(best=1e30, number=3),
            ],
            "−1.000e+30",
        ),
        (
            [row(curve=[(10, 0.1, math.nan), (20, 0.2, math.inf)], best=None, status="diverged")],
            "1 trial diverged",
        ),
        ([row(metric="loss/total <&>", family="<b>", data="&", study="x<y")], "X<y: <b> on &"),
    ],
)
def test_small_and_broken_sweeps(tmp_path: Path, rows: list[TrialRow], says: str):
    page, _ = report(tmp_path, rows)
    assert says in page.text


def test_effects_against_none(tmp_path: Path):
    changes = {
        "study": "regularisers",
        "family": "ae",
        "metric": "validation_accuracy",
        "mode": "max",
    }
    rows = [row("none", "tuned", seed, 0.80 + 0.01 * seed, seed, **changes) for seed in range(5)]
    rows += [
        row("l2", "tuned", seed, 0.83 + 0.01 * seed + 0.002 * (seed % 2), 10 + seed, **changes)
        for seed in range(5)
    ]
    rows += [
        row(
            "dropout", "tuned", seed, 0.80 + 0.01 * seed + 0.02 * (-1) ** seed, 20 + seed, **changes
        )
        for seed in range(5)
    ]
    page, folder = report(
        tmp_path, rows, lambda sweep, each: {"accuracy": 0.5 if each.arm == "none" else 0.4}
    )
    effects = {(line["arm"], line["split"]): line for line in table(folder, "effects")}
    assert float(effects["l2", "validation"]["difference"]) == pytest.approx(0.03)
    assert float(effects["l2", "validation"]["low"]) == pytest.approx(0.03)
    assert float(effects["l2", "validation"]["high"]) == pytest.approx(0.032)
    assert (
        effects["l2", "validation"]["better"] == "5"
        and effects["dropout", "validation"]["better"] == "3"
    )
    assert float(effects["dropout", "validation"]["low"]) == pytest.approx(-0.02)
    assert float(effects["l2", "test"]["difference"]) == pytest.approx(-0.1)
    assert "with an interval that excludes 0: dropout and none." in page.text
    assert "effects" in page.identifiers


def test_the_summary_says_how_sure_it_is():
    rows = [row("a", "tuned", seed, 1.0 + 0.1 * seed, seed) for seed in range(5)]
    rows += [
        row("b", "tuned", seed, 1.05 + 0.1 * seed - 0.2 * (seed == 4), 10 + seed)
        for seed in range(5)
    ]
    rows += [row("c", "tuned", seed, 3.0 + 0.1 * seed, 20 + seed) for seed in range(5)]
    parts = dict(summary(Comparison(rows)))
    assert parts["Best arm"].startswith("a, tuned: median 1.2 (1 to 1.4) over 5 seeds")
    assert (
        "The second-best arm is b. It is worse in 4 of 5 common seeds, with a median "
        "difference of 0.05 (" in parts["Certainty"]
    )
    assert "These seeds do not distinguish the best arm from: b." in parts["Certainty"]
    assert "excludes 0: c." in parts["Certainty"]
    assert (
        "94%, so that 1 in 16 pairs of equal arms seems different by chance" in parts["Certainty"]
    )
    assert (
        "the range of 5 seeds, which contains the true median with a probability of 94%"
        in parts["Best arm"]
    )
    rows.append(row("a", "search", 0, 1.0, 30))
    assert (
        "did not have the same number"
        in dict(summary(Comparison([*rows, row("a", "search", 0, 1.0, 31)])))["Protocol"]
    )


def test_tuned_runs_count_once_every_arm_has_one():
    untuned = [row("sgd", "default", seed, 0.82, seed, mode="max") for seed in range(3)]
    untuned += [row("adam", "default", seed, 0.9, 10 + seed, mode="max") for seed in range(3)]
    begun = row("sgd", "tuned", 7, None, 20, mode="max", status="running")
    first = row("sgd", "tuned", 7, 0.83, 20, mode="max")
    for tuned in (begun, first):  # adam's would be better, if it had any
        won = dict(summary(Comparison([*untuned, tuned])))["Best arm"]
        assert (
            won.startswith("adam, untuned: median 0.9 (0.9 to 0.9) over 3 seeds")
            and "Unfinished" in won
        )
    assert dict(summary(Comparison([*untuned, first])))["Effect of tuning"].endswith(
        "Tuning improved sgd, from 0.82 (0.82 to 0.82) to 0.83."
    )
    second = row("adam", "tuned", 7, 0.91, 21, mode="max")
    assert dict(summary(Comparison([*untuned, first, second])))["Best arm"].startswith(
        "adam, tuned: median 0.91"
    )
    # An arm whose search found nothing has no tuned runs, and nobody waits for them; while the
    # search goes on, one does.
    lost = row("adam", "search", 0, None, 30, mode="max", status="diverged")
    going = row("adam", "search", 0, None, 31, mode="max", status="running")
    assert dict(summary(Comparison([*untuned, first, lost])))["Best arm"].startswith(
        "sgd, tuned: median 0.83"
    )
    assert Comparison([*untuned, first, lost, going]).ranking_phase == "default"
    assert "no trial has ended" in dict(summary(Comparison([begun, going])))["Best arm"]


def test_equal_runs_are_not_counted_as_behind():
    rows = [
        row(arm, "tuned", seed, 0.9, number, mode="max")
        for number, arm in enumerate("ab")
        for seed in range(3)
    ]
    rows += [row("a", "tuned", 3, 0.95, 9, mode="max"), row("b", "tuned", 3, 0.94, 10, mode="max")]
    assert (
        "The second-best arm is b. It is worse in 1 of 4 common seeds and equal in 3, "
        in dict(summary(Comparison(rows)))["Certainty"]
    )


def test_samples_of_the_best_runs(tmp_path: Path):
    rows = [row("a", "tuned", seed, 2.0 - seed, seed, family="gan") for seed in range(2)]
    sweep = write_sweep(tmp_path / "sweep", rows)
    asked: list[str] = []

    def sample(_: Path, row: TrialRow) -> bytes:
        asked.append(row.trial)
        return b"\x89PNG..."

    page = Page(write_report(sweep, measure=nothing, sample=sample).read_text())
    assert asked == [rows[1].trial] and "data:image/png;base64,iVBORy4uLg==" in page.references


def test_numbers():
    assert [
        number(each) for each in (0.0, 1.0, 12345.6, 0.00001234, -2.5, math.inf, math.nan, None)
    ] == [
        "0",
        "1",
        "12,346",
        "1.234e−05",
        "−2.5",
        "∞",
        "–",
        "–",
    ]


def test_a_folder_that_is_no_sweep(tmp_path: Path):
    with pytest.raises(CheckpointError, match="not a sweep"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_of_test_figures_may_be_damaged(tmp_path: Path):
    rows = [row("a", "default", 1, 2.0)]
    sweep = write_sweep(tmp_path / "sweep", rows)
    (sweep / "report").mkdir()
    (sweep / "report" / "test.json").write_text("[")
    write_report(sweep, measure=measured)
    kept = json.loads((sweep / "report" / "test.json").read_text())
    assert kept[rows[0].trial]["figures"]["loss"] == pytest.approx(2.1)


def test_a_report_in_which_everything_failed_has_no_empty_charts(tmp_path):
    rows = [
        row(
            arm,
            phase,
            seed,
            None,
            number,
            status="failed",
            error="RunFault: no such folder",
            steps=0,
            params={"optimizer.learning_rate": 10.0**-seed, "optimizer.beta1": 0.9 - seed / 20},
        )
        for number, (arm, phase, seed) in enumerate(
            (arm, phase, seed)
            for arm in ("adam", "sgd")
            for phase in ("default", "search")
            for seed in range(5)
        )
    ]
    page = write_report(write_sweep(tmp_path, rows), measure=nothing).read_text()
    assert "<svg" not in page and not list((tmp_path / "report").glob("*.png"))
    assert "20 failed with an error" in page and "no such folder" in page
