"""``serinus simulate``: reads Canary and traffic model, plays the releases, and writes what came of them."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from serinus.analysis.words import count
from serinus.api import parse_live
from serinus.api.canary import CanarySpec
from serinus.cli import lint, verdict_page
from serinus.cli.session import Exit, Stop
from serinus.simulation.page import page
from serinus.simulation.release import Ending, Release, simulate
from serinus.simulation.summary import Summary, document, documents, spread, verdict, way, whole
from serinus.simulation.traffic import TrafficModel, load_traffic

_COLOURS = {Ending.PROMOTED: "green", Ending.ROLLED_BACK: "red", Ending.UNDECIDED: "yellow"}
_WIDE = 160


@dataclass(frozen=True, slots=True)
class Order:
    """What is simulated: paths of the Canary and of the traffic model, first seed, releases, and how long each."""

    canary: str
    traffic: str
    seed: int
    runs: int
    horizon_s: float


@dataclass(frozen=True, slots=True)
class Subject:
    """The Canary that is simulated. ``left_out`` are the users' metrics that it has beside what is judged."""

    name: str
    spec: CanarySpec
    left_out: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """What the simulation does not show, in sentences."""
        if not self.left_out:
            return []
        metrics = f"metric{'' if len(self.left_out) == 1 else 's'} {', '.join(self.left_out)}"
        return [f"A simulation has no Prometheus: the candidate is judged without the {metrics} of spec.analysis."]


def simulated(order: Order, output: str, file: str, processes: int) -> int:
    """Simulate, write the result, and return the exit status: 0, whatever became of the releases.

    Args:
        order: what is simulated.
        output: ``table``, ``json`` or ``html``.
        file: where the result is written; empty is standard output.
        processes: how many work side by side.

    Raises:
        Stop: a file cannot be read or written, or has a problem; the sentences say what to write instead.
    """
    subject, model = read_canary(order.canary), read_traffic(order.traffic)
    _must_fit(order, subject.spec, model)
    releases = _played(order, subject, model, processes)
    title = f"Canary {subject.name} under {Path(order.traffic).name}"
    if output == "html":
        experiments = [verdict_page.page_of(each, ended=True) for each in releases[0].experiments]
        _write(page(title, releases, subject.notes, experiments), file)
    elif output == "json":
        result = document(releases[0]) if order.runs == 1 else documents(releases)
        about: dict[str, Any] = {"canary": subject.name, "traffic": order.traffic, "leftOut": list(subject.left_out)}
        _write(json.dumps(about | result, indent=2, ensure_ascii=False) + "\n", file)
    else:
        with _console(file) as console:
            _show(console, title, releases, subject.notes)
    return Exit.DONE


def read_canary(path: str) -> Subject:
    """Return the one Canary in a file.

    Raises:
        Stop: there is none or more than one, or it has a problem.
    """
    documents_ = [each for each in lint.read([path]) if each.trouble or each.kind == "Canary"]
    wrong = [found for found in lint.lint(documents_) if not found.hint]
    if wrong:
        raise Stop("\n".join(map(str, wrong)), Exit.REFUSED)
    if not documents_:
        raise Stop(f"There is no Canary in {path}; write one as in docs/canary.md.", Exit.REFUSED)
    if len(documents_) > 1:
        names = ", ".join(each.name for each in documents_)
        raise Stop(
            f"There are {len(documents_)} Canaries in {path}: {names}. Give a file with one of them.", Exit.REFUSED
        )
    spec = parse_live(CanarySpec, documents_[0].raw["spec"])
    left_out = tuple(metric.name for metric in spec.analysis.metrics)
    plain = spec.model_copy(update={"analysis": spec.analysis.model_copy(update={"metrics": []})})
    return Subject(documents_[0].name, plain, left_out)


def read_traffic(path: str) -> TrafficModel:
    """Return the traffic model in a file; paths in it begin where it is.

    Raises:
        Stop: it cannot be read, or has a problem.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise Stop(f"{path} cannot be read: {getattr(problem, 'strerror', None) or problem}") from problem
    try:
        return load_traffic(text, Path(path).parent)
    except ValueError as problem:
        raise Stop("\n".join(f"{path}: {line}" for line in str(problem).splitlines()), Exit.REFUSED) from problem


def _must_fit(order: Order, spec: CanarySpec, model: TrafficModel) -> None:
    """Raise Stop where the traffic model tells of an experiment that the Canary does not have."""
    known = [each.name for each in spec.faults]
    for index, each in enumerate(model.faults):
        if each.experiment is not None and each.experiment not in known:
            instead = f"write one of {', '.join(known)}" if known else "it has none, so leave the entry out"
            wrong = f'the Canary has no experiment "{each.experiment}"; {instead}'
            raise Stop(f"{order.traffic}: faults[{index}].experiment: {wrong}", Exit.REFUSED)


def _played(order: Order, subject: Subject, model: TrafficModel, processes: int) -> list[Release]:
    play = partial(_play, subject, model, order.horizon_s)
    seeds = range(order.seed, order.seed + order.runs)
    if min(processes, order.runs) < 2:
        return list(_told(map(play, seeds), order.runs))
    with get_context("spawn").Pool(min(processes, order.runs)) as pool:
        return list(_told(pool.imap(play, seeds), order.runs))


def _play(subject: Subject, model: TrafficModel, horizon_s: float, seed: int) -> Release:
    return simulate(subject.spec, model, seed, name=subject.name, horizon_s=horizon_s)


def _told(releases: Iterator[Release], runs: int) -> Iterator[Release]:
    """Pass releases on, and tell a person who waits how many there are by now."""
    for number, release in enumerate(releases, 1):
        if runs > 1 and sys.stderr.isatty():
            sys.stderr.write(f"\r{number} of {runs}{'' if number < runs else chr(10)}")
        yield release


def _show(console: Console, title: str, releases: Sequence[Release], notes: Sequence[str]) -> None:
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    say(title, style="bold")
    if len(releases) == 1:
        _show_one(console, releases[0])
    else:
        summary = Summary.of(releases)
        say(summary.sentence)
        say(f"until the end, median and 95th percentile: {spread(summary.seconds, ' s')}")
        say(f"bad responses caused, median and 95th percentile: {spread(summary.bad_responses)}")
        for tally in summary.experiments:
            say(tally.sentence)
        table = Table("seed", "verdict", "bad responses", "weights", box=None, padding=(0, 2, 0, 0))
        for each in releases:
            table.add_row(str(each.seed), _verdict(each), whole(each.bad_responses), way(each))
        console.print(table)
    for note in notes:
        say(note, style="dim")


def _show_one(console: Console, release: Release) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("verdict", _verdict(release))
    table.add_row("why", Text(release.message))
    table.add_row("weights", Text(way(release)))
    table.add_row("bad responses", f"{whole(release.bad_responses)} caused by the defects")
    table.add_row("failed", f"{count(release.failed_responses, 'response')} seen, whoever's fault")
    for metric in release.metrics:
        if metric.harm is not None and metric.safe is not None:
            words = f"evidence for harm {metric.harm:.0f} %, for safety {metric.safe:.0f} %"
            table.add_row(metric.name, Text(f"{metric.verdict}: {words}"))
    console.print(table)
    console.print(verdict_page.experiments(release.experiments, ended=True), end="", soft_wrap=True)


def _verdict(release: Release) -> Text:
    return Text(verdict(release), _COLOURS[release.ending])


@contextmanager
def _console(file: str) -> Iterator[Console]:
    """Give what a table is printed on: the terminal, or a text for a file."""
    if not file:
        yield Console()
        return
    text = StringIO()
    yield Console(file=text, width=_WIDE)
    _write(text.getvalue(), file)


def _write(text: str, file: str) -> None:
    if not file:
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as problem:
        raise Stop(f"{file} cannot be written: {problem.strerror or problem}") from problem
