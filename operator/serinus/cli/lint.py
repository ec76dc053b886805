"""``serinus lint``: every problem of Canaries and TrafficPolicies in files, without a cluster.

A line is ``FILE:DOCUMENT:PATH: sentence``, so that editors and people find the place.
"""

import sys
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serinus.analysis.checks import check_queries
from serinus.api import check_canary, check_policy, hint_policy, problems
from serinus.api.canary import CanarySpec
from serinus.api.names import API_VERSION, GROUP
from serinus.api.rules import MAX_NAME_LENGTH, NAME_MESSAGE
from serinus.api.trafficpolicy import TrafficPolicySpec
from serinus.cli.session import Object, Stop

MODELS: dict[str, type[CanarySpec] | type[TrafficPolicySpec]] = {
    "Canary": CanarySpec,
    "TrafficPolicy": TrafficPolicySpec,
}
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file that is a resource of ours, or cannot be read: then ``trouble`` says why."""

    where: str
    raw: Object
    trouble: str = ""

    @property
    def kind(self) -> str:
        """``Canary`` or ``TrafficPolicy``."""
        return str(self.raw.get("kind", ""))

    @property
    def name(self) -> str:
        """Its name; empty when it has none."""
        return str((self.raw.get("metadata") or {}).get("name") or "")

    @property
    def namespace(self) -> str:
        """Its namespace; empty when the file leaves it open."""
        return str((self.raw.get("metadata") or {}).get("namespace") or "")


@dataclass(frozen=True, slots=True)
class Found:
    """What is wrong (``hint`` False), or might be not what was meant (``hint`` True)."""

    where: str
    sentence: str
    hint: bool = False

    def __str__(self) -> str:
        return f"{self.where}:{' hint: ' if self.hint else ''}{self.sentence}"


def read(paths: Iterable[str]) -> list[Document]:
    """Return our resources in files, in folders (all YAML and JSON files below) and on standard input (``-``).

    Raises:
        Stop: a file cannot be read.
    """
    found: list[Document] = []
    for path in paths:
        if path == "-":
            found += _documents("-", sys.stdin.read())
            continue
        for file in _files(Path(path)):
            try:
                found += _documents(str(file), file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as problem:
                raise Stop(f"{file} cannot be read: {getattr(problem, 'strerror', None) or problem}") from problem
    return found


def lint(documents: list[Document]) -> list[Found]:
    """Return everything that is wrong with the documents, each by itself and together."""
    found: list[Found] = []
    for document in documents:
        if document.trouble:
            found.append(Found(document.where, document.trouble))
            continue
        found += [Found(document.where, sentence) for sentence in _metadata(document)]
        found += _spec(document)
    return found + _rivals(documents)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    return [path]


def _documents(file: str, text: str) -> Iterator[Document]:
    number = 0
    try:
        for number, raw in enumerate(yaml.load_all(text, Loader=_Loader), 1):
            items = raw.get("items") if isinstance(raw, dict) and raw.get("kind") == "List" else [raw]
            for item in items or []:
                if isinstance(item, dict) and str(item.get("apiVersion", "")).split("/")[0] == GROUP:
                    yield Document(f"{file}:{number}", item)
    except yaml.YAMLError as problem:
        place = getattr(problem, "problem_mark", None)
        at = f" in line {place.line + 1}, column {place.column + 1}" if place else ""
        words = getattr(problem, "problem", None) or str(problem)
        yield Document(f"{file}:{number + 1}", {}, f"this is not YAML{at}: {words}")


class _Loader(yaml.SafeLoader):
    """Reads YAML as kubectl does: a key that stands twice is an error, not a silent choice of the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _metadata(document: Document) -> Iterator[str]:
    if document.kind not in MODELS:
        yield f"kind: there is no kind {document.kind or '(none)'} in {GROUP}; write {' or '.join(MODELS)}"
    elif document.raw["apiVersion"] != API_VERSION:
        yield f"apiVersion: {document.raw['apiVersion']} is not known; write {API_VERSION}"
    if not document.name:
        yield "metadata.name: this field is missing; write a name"
    elif len(document.name) > MAX_NAME_LENGTH:
        yield f"metadata.name: {NAME_MESSAGE}"


def _spec(document: Document) -> list[Found]:
    if document.kind not in MODELS:
        return []
    spec = document.raw.get("spec")
    if not isinstance(spec, dict):
        return [Found(document.where, "spec: this field is missing; write a block with fields")]
    model = MODELS[document.kind]
    sentences = problems(model, spec)
    hints: list[str] = []
    if not sentences:
        parsed = model.model_validate(_without_nulls(spec))
        if isinstance(parsed, CanarySpec):
            sentences = check_canary(parsed) + check_queries(parsed)
        else:
            sentences, hints = check_policy(parsed), hint_policy(parsed)
    return [Found(document.where, s) for s in sentences] + [Found(document.where, s, hint=True) for s in hints]


def _without_nulls(value: Any) -> Any:
    """Return a spec as the API server keeps it."""
    if isinstance(value, dict):
        return {key: _without_nulls(below) for key, below in value.items() if below is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _rivals(documents: list[Document]) -> list[Found]:
    """Return the Canaries that release the same target, and the policies of the same Service."""
    first: dict[tuple[str, str, str], Document] = {}
    found = []
    for document in documents:
        target = ((document.raw.get("spec") or {}).get("targetRef") or {}) if not document.trouble else {}
        name = target.get("name") if isinstance(target, dict) else None
        if not name:
            continue
        older = first.setdefault((document.kind, document.namespace, str(name)), document)
        if older is document or (older.name == document.name and older.where == document.where):
            continue
        if document.kind == "Canary":
            sentence = f"spec.targetRef.name: {older.name} ({older.where}) has the same target; drop one of the two"
            found.append(Found(document.where, sentence))
        else:
            sentence = f"spec.targetRef.name: {older.name} ({older.where}) is about the same Service; the older counts"
            found.append(Found(document.where, sentence, hint=True))
    return found
