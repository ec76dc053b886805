"""From what stands in the cluster or in a file to a model, and every problem on the way as a sentence."""

from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serinus.api.schema import Schema, structural

Model = TypeVar("Model", bound=BaseModel)


def parse_live(model: type[Model], raw: dict[str, Any]) -> Model:
    """Return the model of a live object's part, without the fields that this version does not know.

    So an older operator survives a newer resource definition. Nulls count as absent, as for the API server.

    Raises:
        ValueError: with a sentence for every field that cannot be read.
    """
    known, _ = _split(model, raw, "")
    try:
        return model.model_validate(known)
    except ValidationError as error:
        sentences = "; ".join(_sentence(model, detail, "spec") for detail in error.errors())
        raise ValueError(sentences) from error


def problems(model: type[BaseModel], raw: dict[str, Any]) -> list[str]:
    """Return every problem of a spec that its user wrote, one sentence each, with the path as the user wrote it.

    ``spec.strategy.steps[1].weight: 200 is more than 100; write a number from 0 to 100``. The rules between fields are
    checked by ``check_canary`` and ``check_policy``, once there is no problem here.
    """
    known, unknown = _split(model, raw, "spec")
    try:
        model.model_validate(known, strict=True)
    except ValidationError as error:
        return unknown + [_sentence(model, detail, "spec") for detail in error.errors()]
    return unknown


def _split(model: type[BaseModel], raw: Any, path: str) -> tuple[Any, list[str]]:
    """Return ``raw`` without nulls and unknown fields, and a sentence for each unknown field."""
    if not isinstance(raw, dict):
        return raw, []
    fields = _fields(model)
    known: dict[str, Any] = {}
    sentences = []
    for name, value in raw.items():
        if name not in fields:
            sentences.append(f"{path}.{name}: there is no such field; {_nearest(str(name), list(fields))}")
            continue
        if value is None:
            continue
        below = fields[name]
        if below and isinstance(value, list):
            parts = [_split(below, item, f"{path}.{name}[{index}]") for index, item in enumerate(value)]
            known[name] = [part for part, _ in parts]
            sentences += [sentence for _, found in parts for sentence in found]
        elif below:
            known[name], found = _split(below, value, f"{path}.{name}")
            sentences += found
        else:
            known[name] = value
    return known, sentences


@cache
def _fields(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Return a model's fields, as users write them, each with the model that is in it."""
    return {field.alias or name: _model_in(field.annotation) for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is about: itself, optional, or the entries of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, UnionType, Annotated):
        for argument in get_args(annotation):
            if found := _model_in(argument):
                return found
    return None


def _nearest(name: str, known: list[str]) -> str:
    plain = {field.lower(): field for field in known}
    near = get_close_matches(name.replace("_", "").replace("-", "").lower(), plain, n=1, cutoff=0.6)
    if near:
        return f"write {plain[near[0]]}"
    return f"known are {', '.join(known)}"


_TYPES = {
    "object": "a block with fields",
    "array": "a list",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
}


_BEYOND = {
    "less_than_equal": "more than",
    "less_than": "not below",
    "greater_than_equal": "less than",
    "greater_than": "not above",
}


def _sentence(model: type[BaseModel], error: ErrorDetails, root: str) -> str:
    """Say what is wrong at one place, and what to write there instead."""
    path = root + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    schema = _schema_at(structural(model), error["loc"])
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return f"{path}: this field is missing; write it ({_first_sentence(schema)})"
    if kind == "value_error":
        return f"{path}: {context['error']}"
    if kind in _BEYOND:
        return f"{path}: {_shown(value)} is {_BEYOND[kind]} {_limit(context)}; write {_allowed(schema)}"
    if kind in ("too_short", "too_long"):
        return f"{path}: the list has {context['actual_length']} entries; write {_allowed(schema)}"
    if kind in ("string_too_short", "string_too_long"):
        return f"{path}: the text has {len(str(value))} characters; write {_allowed(schema)}"
    return f"{path}: {_shown(value)} does not fit here; write {_allowed(schema)}"


def _schema_at(schema: Schema, location: tuple[int | str, ...]) -> Schema:
    for part in location:
        schema = schema["items"] if isinstance(part, int) else schema["properties"][part]
    return schema


def _first_sentence(schema: Schema) -> str:
    words = str(schema.get("description", "")).split(". ")[0].rstrip(".")
    return words[:1].lower() + words[1:]


def _limit(context: dict[str, Any]) -> str:
    return _number(next(context[bound] for bound in ("le", "lt", "ge", "gt") if bound in context))


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1_000_000 else f"{value:,.0f}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a block with fields"
    if isinstance(value, list):
        return "a list"
    return f'"{value[:60]}"' if isinstance(value, str) else str(value)


def _allowed(schema: Schema) -> str:
    """Say in words what a field takes."""
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"]) if len(schema["enum"]) > 1 else str(schema["enum"][0])
    words = _TYPES[schema["type"]]
    if schema["type"] == "array":
        return (
            f"a list of {schema.get('minItems', 0)} to {schema['maxItems']} entries" if "maxItems" in schema else words
        )
    if schema["type"] == "string":
        return _allowed_text(schema)
    if "minimum" in schema and "maximum" in schema:
        words += f"{_from(schema)} to {'below ' if schema.get('exclusiveMaximum') else ''}{_number(schema['maximum'])}"
    return words


def _from(schema: Schema) -> str:
    return f" from {'above ' if schema.get('exclusiveMinimum') else ''}{_number(schema['minimum'])}"


def _allowed_text(schema: Schema) -> str:
    pattern = schema.get("pattern", "")
    if pattern.endswith("ms)?$"):
        return 'a duration, for example "30s", "5m" or "1h30m"'
    if pattern.startswith("^https?"):
        return 'a URL, for example "http://prometheus.monitoring:9090"'
    if pattern == "^/":
        return 'a path that begins with "/"'
    length = f"{schema.get('minLength', 0)} to {schema['maxLength']} characters" if "maxLength" in schema else ""
    if pattern.startswith("^[a-z0-9]"):
        return f"{length} out of a-z, 0-9, - and ., with a letter or digit at both ends".replace(
            " and .,", "," if "." not in pattern else " and .,"
        )
    if pattern:
        return f"{length} out of letters, digits and -"
    return f"text of {length}" if length else "text"
