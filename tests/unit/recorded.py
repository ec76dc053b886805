"""A run that was judged scrape by scrape, and its record, as the cluster would hold it."""

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from serinus.analysis import analyse, runlog
from serinus.analysis.model import Counts, Evidence, Judgement, Outcome, Reading, Sample
from serinus.api import parse_live
from serinus.api.canary import CanarySpec
from serinus.api.release import RunStatus
from serinus.delivery import evidence, moves, recording
from serinus.delivery.model import Meta, Totals
from serinus.kube.errors import Conflict, KubeError, NotFound
from serinus.kube.kinds import CANARY, CONFIG_MAP, Kind

META = Meta("shop", "cart", uid="uid-cart")
BEFORE = Counts(4000, 8, (0, 0, 0, 800, 2000, 1000, 160, 40, 0, 0, 0, 0, 0))
SHARES = [0.0, 0.0, 0.0, 0.2, 0.5, 0.25, 0.04, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0]


def spec_of(**analysis: Any) -> CanarySpec:
    return parse_live(CanarySpec, {"targetRef": {"name": "cart"}, "analysis": {"warmUp": "20s", **analysis}})


@dataclass
class Run:
    """Judges a candidate every ``every_s`` seconds; the state goes through JSON each time, as through a status."""

    spec: CanarySpec
    failing: float = 0.002
    rate: int = 100
    weight_pct: int = 20
    every_s: float = 2.013
    seed: int = 1
    state: dict[str, Any] = field(default_factory=dict)
    book: evidence.Book = field(default_factory=evidence.Book)
    totals: Totals = field(default_factory=lambda: Totals("reader-1", Evidence()))
    now_s: float = 0.0
    judgement: Judgement | None = None
    chunks: dict[int, str] = field(default_factory=dict)
    largest: int = 0
    """Most characters that log and chunk took in the status."""
    readings: tuple[Reading, ...] = ()
    sequence: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def scrape(self) -> None:
        """One scrape, and the look at it."""
        self.now_s = round(self.now_s + self.every_s, 6)
        requests, seen = self.rate * self.every_s, self.totals.evidence
        candidate = self._counts(requests * self.weight_pct / 100, self.failing)
        one, two = (self._counts(requests * (100 - self.weight_pct) / 200, 0.002) for _ in range(2))
        (requests_1, bad_1), (requests_2, bad_2) = self.totals.halves
        self.totals = replace(
            self.totals,
            evidence=Evidence(seen.candidate + candidate, seen.stable + one + two),
            halves=(
                (requests_1 + one.requests, bad_1 + one.failures),
                (requests_2 + two.requests, bad_2 + two.failures),
            ),
        )
        self.look()

    def restart(self) -> None:
        """Another process goes on: its reader begins to count at nothing, and the book is read from the status."""
        self.book = evidence.load(json.loads(json.dumps(self.book.dump())))
        self.totals = Totals(f"{self.totals.reader}x", Evidence())

    def look(self) -> None:
        """Judge what was counted so far."""
        self.book = self.book.counted(self.totals)
        sample = Sample(
            total=self.book.total,
            window=self.book.window,
            halves=self.book.halves,
            before=BEFORE,
            candidates=2,
            stables=4,
            weight_pct=self.weight_pct,
            at_weight_s=self.now_s,
            now_s=self.now_s,
            readings=self.readings,
        )
        self.judgement = analyse(self.spec, sample, self.state)
        self.state = json.loads(json.dumps(self.judgement.state))
        log = [self.state[runlog.LOG], self.state.get(runlog.CHUNK)]
        self.largest = max(self.largest, len(json.dumps(log)))
        if chunk := self.state.get(runlog.CHUNK):
            self.chunks[chunk["number"]] = chunk["rows"]

    def answer(self, **values: float) -> None:
        """New answers to users' queries."""
        self.sequence += 1
        self.readings = tuple(
            Reading(name.replace("_", "/"), Outcome.VALUE, value, sequence=self.sequence)
            for name, value in values.items()
        )

    def play(self, scrapes: int) -> "Run":
        for _ in range(scrapes):
            self.scrape()
        return self

    def _counts(self, requests: float, failing: float) -> Counts:
        number = int(self.random.poisson(requests))
        buckets = self.random.multinomial(number, SHARES)
        return Counts(number, int(self.random.binomial(number, failing)), tuple(int(tries) for tries in buckets))

    def status(self) -> RunStatus:
        """The run as the status has it."""
        assert self.judgement is not None
        return RunStatus(
            id="rev-1",
            revision="rev",
            started_at="2026-05-04T12:00:00.000Z",
            stage_since="2026-05-04T12:10:00.000Z",
            weight=self.weight_pct,
            verdict=self.judgement.verdict.value,
            metrics=[moves.metric_status(finding) for finding in self.judgement.findings],
            measured_weight=evidence.measured_weight(self.book.window),
            acknowledged_at="2026-05-04T12:00:00.000Z",
            evidence=json.loads(json.dumps(replace(self.book, notes=self.state).dump())),
        )

    def record(self) -> dict[str, Any]:
        """The record, put together from its parts."""
        rows = [row for number in sorted(self.chunks) for row in runlog.unpack(self.chunks[number])]
        found = recording.ending(META, self.status()) | {"rows": rows + self.state[runlog.LOG], "missing": []}
        return dict(json.loads(json.dumps(found)))


class Maps:
    """An API server that has ConfigMaps, one Canary, and selectors by label."""

    def __init__(self, canary: dict[str, Any] | None = None) -> None:
        self.maps: dict[str, dict[str, Any]] = {}
        self.canary = canary
        self.asked: list[str] = []
        self.trouble: KubeError | None = None
        self.clock = 0

    async def create(self, kind: Kind, body: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
        assert kind is CONFIG_MAP
        name = body["metadata"]["name"]
        self.asked.append(f"create {name}")
        if self.trouble:
            raise self.trouble
        if name in self.maps:
            raise Conflict(f"{name} exists", status=409, reason="AlreadyExists")
        self.clock += 1
        made = {"uid": f"uid-{self.clock}", "creationTimestamp": f"2026-05-04T12:{self.clock:04}Z"}
        self.maps[name] = json.loads(json.dumps({**body, "metadata": {**body["metadata"], **made}}))
        return body

    async def list(self, kind: Kind, namespace: str | None = None, *, labels: str = "") -> list[dict[str, Any]]:
        if kind is CANARY:
            return [self.canary] if self.canary else []
        assert kind is CONFIG_MAP
        self.asked.append(f"list {labels}")
        if self.trouble:
            raise self.trouble
        return [one for one in self.maps.values() if selects(labels, one["metadata"]["labels"])]

    async def delete(self, kind: Kind, name: str, namespace: str | None = None, *, uid: str | None = None) -> None:
        assert kind is CONFIG_MAP
        self.asked.append(f"delete {name}")
        assert self.maps[name]["metadata"]["uid"] == uid
        del self.maps[name]

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> dict[str, Any]:
        assert kind is CANARY
        if self.canary is None or self.canary["metadata"]["name"] != name:
            raise NotFound(f"there is no {name}", status=404)
        return self.canary


def selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether a label selector of Kubernetes holds: ``a=b``, ``a in (b,c)``, ``a``."""
    for term in re.split(r",(?![^(]*\))", selector):
        if " in " in term:
            key, _, values = term.partition(" in ")
            if labels.get(key) not in values.strip("()").split(","):
                return False
        elif "=" in term:
            key, _, value = term.partition("=")
            if labels.get(key) != value:
                return False
        elif term not in labels:
            return False
    return True
