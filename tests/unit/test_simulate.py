"""``serinus simulate``: whole releases in virtual time, decided by the product, and what is written about them."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from serinus.api import parse_live
from serinus.api.canary import CanarySpec
from serinus.api.status import Reason
from serinus.cli.app import app
from serinus.cli.session import Exit
from serinus.simulation.charts import draw
from serinus.simulation.cluster import Delays
from serinus.simulation.release import Ending, Release, simulate
from serinus.simulation.summary import Spread, Summary
from serinus.simulation.traffic import load_traffic

ROOT = Path(__file__).parents[2]
QUICK: dict[str, Any] = {
    "profile": "Fast",
    "warmUp": "0s",
    "latency": {"compare": False},
    "tuning": {"shortest": "20s", "last": "4s", "dwell": "4s", "growth": 10},
}
"""A good release passes in about half a minute."""
GOOD = "requests: {perSecond: 300}\nerrors: {percent: 0.1}\n"
OUTAGE = GOOD + "defects: [{outage: true}]\n"
STEPS = [{"weight": 10, "for": "6s"}, {"weight": 40, "for": "4s"}]


def a_release(traffic: str, seed: int = 1, horizon_s: float = 300, **fields: Any) -> Release:
    raw = {"targetRef": {"name": "cart"}, "strategy": {"watch": {"for": "10s"}}, "analysis": QUICK, **fields}
    return simulate(parse_live(CanarySpec, raw), load_traffic(traffic), seed, horizon_s=horizon_s, history_s=120)


@pytest.fixture(scope="module")
def good() -> Release:
    return a_release(GOOD)


@pytest.fixture(scope="module")
def bad() -> Release:
    return a_release(OUTAGE)


class TestRelease:
    def test_a_good_candidate_is_watched_and_promoted(self, good: Release) -> None:
        assert good.ending is Ending.PROMOTED
        assert good.passed_s is not None
        assert good.ended_s is not None
        assert good.passed_s + 10 <= good.ended_s < 250
        assert good.bad_responses == 0
        assert good.weights[-1][1] == 100
        assert [each.reason for each in good.happenings][-3:] == [Reason.WATCHING, Reason.PROMOTING, Reason.PROMOTED]

    def test_an_outage_is_rolled_back_in_seconds_after_a_few_bad_responses(self, bad: Release) -> None:
        assert bad.ending is Ending.ROLLED_BACK
        assert bad.ended_s is not None
        assert bad.ended_s < 20
        assert 0 < bad.bad_responses < 100
        assert bad.weights[-1][1] == 0
        assert "success rate" in bad.message

    def test_pods_start_and_sidecars_follow_before_the_candidate_gets_requests(self, bad: Release) -> None:
        first = next(at_s for at_s, share in bad.weights if share)
        assert 5.1 <= first < 9.5  # pods, sidecars, and five seconds of counting how many requests there are
        assert all(moment.candidate.requests == 0 for moment in bad.moments if moment.second <= 4)

    def test_pods_that_take_too_long_end_the_run(self) -> None:
        spec = parse_live(CanarySpec, {"targetRef": {"name": "cart"}, "progressDeadline": "8s"})
        release = simulate(spec, load_traffic(GOOD), 1, horizon_s=60, history_s=60, delays=Delays(pod_s=30))
        assert release.ending is Ending.ROLLED_BACK
        assert "pods became ready within 8s" in release.message

    def test_a_defect_that_shows_late_is_caught_in_the_watch(self) -> None:
        strategy = {"watch": {"for": "5m", "holdBack": 50}}
        release = a_release(GOOD + "defects: [{errorPoints: 50, after: 250s}]\n", strategy=strategy)
        assert release.ending is Ending.ROLLED_BACK
        assert release.passed_s is not None
        assert release.ended_s is not None
        assert release.passed_s < 250 < release.ended_s < 290

    def test_a_bad_release_that_was_promoted_hurts_until_the_horizon(self) -> None:
        strategy = {"watch": {"for": "0s"}}
        late = GOOD + "defects: [{errorPoints: 10, after: 250s}]\n"
        release = a_release(late, strategy=strategy, horizon_s=290)
        assert release.ending is Ending.PROMOTED
        assert release.ended_s is not None
        assert release.ended_s < 250
        assert release.followed_s == 290
        assert release.bad_responses == pytest.approx(0.1 * 300 * 40, rel=0.2)

    def test_explicit_steps_are_obeyed(self) -> None:
        release = a_release(GOOD, strategy={"steps": STEPS})
        assert release.ending is Ending.PROMOTED
        weights = {share: at_s for at_s, share in release.weights}
        assert list(weights) == [0, 10, 40, 100]
        assert 6 <= weights[40] - weights[10] < 10

    def test_where_a_person_is_asked_it_stays_undecided_and_says_so(self) -> None:
        strategy = {"steps": [{"weight": 10}, {"approval": "look at sales"}, {"weight": 50}]}
        release = a_release(GOOD, strategy=strategy, horizon_s=60)
        assert release.ending is Ending.UNDECIDED
        assert release.ended_s is None
        assert release.followed_s == 60
        assert "waits for approval: look at sales" in release.message

    def test_a_suspended_canary_stays_where_it_is(self) -> None:
        release = a_release(GOOD, suspend=True)
        assert release.ending is Ending.UNDECIDED
        assert "spec.suspend" in release.message

    def test_without_requests_nothing_is_decided(self) -> None:
        release = a_release("requests: {perSecond: 0}\n", horizon_s=40)
        assert release.ending is Ending.UNDECIDED
        assert "no request" in release.message

    def test_labels_left_out_make_the_target_roll_out_by_itself(self) -> None:
        release = a_release(GOOD, strategy={"steps": STEPS}, candidate={"withoutLabels": ["team"]})
        assert release.ending is Ending.PROMOTED
        assert any("rolls out by itself" in each.message for each in release.happenings)

    def test_the_same_seed_is_the_same_release_and_another_is_not(self, good: Release) -> None:
        assert a_release(GOOD) == good
        assert a_release(GOOD, seed=2).moments != good.moments

    def test_the_moments_tell_both_versions_and_the_evidence(self, good: Release) -> None:
        late = good.moments[-1]
        assert late.candidate.requests > 300
        assert late.weight_pct == 95
        harm, safe = late.evidence["success-rate"]
        assert harm is not None
        assert safe is not None
        assert harm < 100 <= safe
        assert sum(m.candidate.failures + m.stable.failures for m in good.moments) == good.failed_responses


class TestSummary:
    def test_shares_and_percentiles_are_those_of_the_releases(self, good: Release, bad: Release) -> None:
        summary = Summary.of([good, bad, bad, bad])
        assert summary.shares == {Ending.PROMOTED: 0.25, Ending.ROLLED_BACK: 0.75, Ending.UNDECIDED: 0}
        assert summary.seconds == Spread(bad.ended_s, good.ended_s)
        assert summary.sentence == "4 releases: promoted 25 %, rolled back 75 %, undecided 0 %"

    def test_percentiles_are_by_the_nearest_rank(self) -> None:
        assert Spread.of(range(1, 101)) == Spread(50, 95)
        assert Spread.of([]) == Spread(None, None)


class TestCharts:
    def test_every_path_stays_within_the_plane(self, good: Release, bad: Release) -> None:
        for release in (good, bad):
            drawing = draw(release)
            plane = drawing.plane
            assert len(drawing.charts) == 4
            for line in (line for chart in drawing.charts for line in chart.lines):
                points = [pair.split() for pair in re.split("[ML]", line.path)[1:]]
                assert len(points) > 1
                assert all(plane.left <= float(x) <= plane.right for x, _ in points)
                assert all(plane.top <= float(y) <= plane.bottom for _, y in points)

    def test_decisions_are_marked(self, good: Release, bad: Release) -> None:
        assert [mark.word for mark in draw(good).marks] == ["passed", "promoted"]
        assert [mark.word for mark in draw(bad).marks] == ["rolled back"]


CANARY = """
apiVersion: serinus.dev/v1alpha1
kind: Canary
metadata: {name: cart}
spec:
  targetRef: {name: cart}
  analysis:
    prometheus: {address: "http://prometheus:9090"}
    metrics: [{name: orders, query: "sum(orders)", min: 1}]
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "canary.yaml").write_text(CANARY, encoding="utf-8")
    (tmp_path / "outage.yaml").write_text(OUTAGE, encoding="utf-8")
    return tmp_path


def serinus(files: Path, *options: str, canary: str = "canary.yaml", traffic: str = "outage.yaml") -> Result:
    given = ["simulate", str(files / canary), "--traffic", str(files / traffic), "--processes", "1", *options]
    return CliRunner().invoke(app, given)


class TestCommand:
    def test_the_table_says_verdict_weights_and_what_is_left_out(self, files: Path) -> None:
        result = serinus(files)
        assert result.exit_code == Exit.DONE
        assert "rolled back after 1" in result.stdout
        assert "0 % (0:00)" in result.stdout
        assert "without the metric orders" in result.stdout

    def test_json_is_as_documented(self, files: Path) -> None:
        found = json.loads(serinus(files, "--output", "json", "--seed", "3").stdout)
        assert found["verdict"] == "RolledBack"
        assert found["seed"] == 3
        assert found["seconds"] < 20
        assert found["badResponses"] > 0
        assert found["weights"][0] == {"second": 0, "weight": 0}
        assert found["leftOut"] == ["orders"]
        fields = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/simulate.md").read_text("utf-8"), re.MULTILINE))
        assert fields >= set(found)

    def test_several_runs_have_seeds_in_order_and_a_summary(self, files: Path) -> None:
        found = json.loads(serinus(files, "--output", "json", "--runs", "2", "--seed", "7").stdout)
        assert [each["seed"] for each in found["releases"]] == [7, 8]
        assert (found["runs"], found["rolledBack"], found["promoted"], found["undecided"]) == (2, 1, 0, 0)
        assert found["seconds"]["median"] <= found["seconds"]["p95"]
        assert "2 releases: promoted 0 %, rolled back 100 %" in serinus(files, "--runs", "2").stdout

    @pytest.mark.parametrize("runs", ["1", "2"])
    def test_html_is_one_page_that_needs_nothing_else(self, files: Path, runs: str) -> None:
        page = files / "page.html"
        result = serinus(files, "-o", "html", "--runs", runs, "--file", str(page))
        assert (result.exit_code, result.stdout) == (Exit.DONE, "")
        text = page.read_text(encoding="utf-8")
        assert "prefers-color-scheme: dark" in text
        assert not re.search(r"<script|https?://|@import|src=|<link", text)
        drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
        assert len([ET.fromstring(drawing) for drawing in drawings]) == 4
        assert ("All releases" in text) == (runs == "2")

    def test_what_is_written_is_quoted(self, files: Path) -> None:
        (files / "<b>.yaml").write_text(OUTAGE, encoding="utf-8")
        text = serinus(files, "-o", "html", traffic="<b>.yaml").stdout
        assert "&lt;b&gt;.yaml" in text
        assert "<b>.yaml" not in text

    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ("spec: {targetRef: {name: cart}, strateg: {}}", "spec.strateg: there is no such field; write strategy"),
            ("spec: {targetRef: {name: cart}, strategy: {steps: [{weight: 200}]}}", "200 is more than 100"),
            ("spec: [", "this is not YAML"),
        ],
        ids=["unknown field", "out of range", "no YAML"],
    )
    def test_a_wrong_canary_is_told_with_its_place(self, files: Path, wrong: str, sentence: str) -> None:
        head = "apiVersion: serinus.dev/v1alpha1\nkind: Canary\nmetadata: {name: cart}\n"
        (files / "wrong.yaml").write_text(head + wrong, encoding="utf-8")
        result = serinus(files, canary="wrong.yaml")
        assert result.exit_code == Exit.REFUSED
        assert f"{files / 'wrong.yaml'}:1:" in result.stderr
        assert sentence in result.stderr

    def test_a_wrong_model_is_told_with_its_place(self, files: Path) -> None:
        (files / "wrong.yaml").write_text("requests: {perSecond: -1}\nerors: {}\n", encoding="utf-8")
        result = serinus(files, traffic="wrong.yaml")
        assert result.exit_code == Exit.REFUSED
        path = files / "wrong.yaml"
        assert f"{path}: erors: there is no such field; write errors" in result.stderr
        assert f"{path}: requests.perSecond: -1 is less than 0" in result.stderr

    @pytest.mark.parametrize(
        ("canary", "traffic", "sentence"),
        [
            ("outage.yaml", "outage.yaml", "There is no Canary in"),
            ("two.yaml", "outage.yaml", "There are 2 Canaries in"),
            ("none.yaml", "outage.yaml", "none.yaml cannot be read: No such file"),
            ("canary.yaml", "none.yaml", "none.yaml cannot be read: No such file"),
        ],
    )
    def test_files_that_do_not_serve_are_told(self, files: Path, canary: str, traffic: str, sentence: str) -> None:
        two = CANARY + "---" + CANARY.replace("name: cart", "name: shop")
        (files / "two.yaml").write_text(two, encoding="utf-8")
        result = serinus(files, canary=canary, traffic=traffic)
        assert result.exit_code in (Exit.REFUSED, Exit.MISSING)
        assert sentence in result.stderr
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize("span", ["soon", "0s"])
    def test_a_span_that_is_none_is_wrong_usage(self, files: Path, span: str) -> None:
        assert serinus(files, "--for", span).exit_code == Exit.USAGE

    def test_the_examples_in_the_documentation_run(self) -> None:
        commands = re.findall(
            r"^serinus (simulate .*?)(?: *#.*)?$", (ROOT / "docs/simulate.md").read_text("utf-8"), re.MULTILINE
        )
        assert len(commands) > 3
        for command in commands:
            given = [
                str(ROOT / word) if word.startswith("examples/") else word for word in command.split(" > ")[0].split()
            ]
            assert CliRunner().invoke(app, [*given, "--runs", "1", "--for", "20s"]).exit_code == Exit.DONE

    def test_the_examples_have_no_problem(self) -> None:
        result = CliRunner().invoke(app, ["lint", str(ROOT / "examples/canary")])
        assert (result.exit_code, result.stdout) == (Exit.DONE, "")
