"""The rules beside the types: what protoc-gen-validate's options demand, as Envoy's generated code checks it.

The rules stand in the descriptors (``validate.rules`` on fields, ``validate.required`` on oneofs), so this interprets
them. A rule of a kind that is not known here is an error by itself, never passed over. Semantics:
https://github.com/bufbuild/protoc-gen-validate/blob/main/README.md.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

_WELL_KNOWN = {  # (kind, strict): the expressions of protoc-gen-validate; 1 is a header's name, 2 a header's value
    (1, True): re.compile(r"^:?[0-9a-zA-Z!#$%&'*+\-.^_|~`]+\Z"),
    (2, True): re.compile(r"^[^\x00-\x08\x0a-\x1f\x7f]*\Z"),
    (1, False): re.compile(r"^[^\x00\x0a\x0d]*\Z"),
    (2, False): re.compile(r"^[^\x00\x0a\x0d]*\Z"),
}
_WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_NUMBERS = frozenset(
    {"double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64"}
)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be looked at in one message type."""

    fields: tuple[tuple[FieldDescriptor, Any], ...]
    oneofs: tuple[str, ...]


_plans: dict[Any, _Plan] = {}


def violation(message: Message, pool: DescriptorPool) -> str | None:
    """Return the first broken rule in ``message`` or anything inside it, as a sentence with its path, or None.

    ``pool`` holds the message types that an ``Any`` may carry, and ``validate/validate.proto``.
    """
    return next(_violations(message, "", pool), None)


def unknown(descriptor: Any, pool: DescriptorPool) -> Iterator[str]:
    """Yield each kind of rule on ``descriptor``'s fields that this module does not know, as ``field: kind.rule``."""
    for field, rule in _plan(descriptor, pool).fields:
        for kind, each in _parts(rule):
            for option, _ in each.ListFields():
                known = option.name in _HANDLED or (kind, option.name) in _CHECKS
                if not known and not (kind in _NUMBERS and option.name in _BOUNDS):
                    yield f"{field.full_name}: {kind}.{option.name}"


def _parts(rule: Any) -> Iterator[tuple[str, Any]]:
    """Yield the scalar rules in a rule, with their kinds: its own, and those for items, keys and values."""
    kind = rule.WhichOneof("type") if rule is not None else None
    if kind is None:
        return
    part = getattr(rule, kind)
    inner = [name for name in ("items", "keys", "values") if kind in ("repeated", "map") and hasattr(part, name)]
    for name in inner:
        yield from _parts(getattr(part, name))
    if not inner:
        yield kind, part


def _plan(descriptor: Any, pool: DescriptorPool) -> _Plan:
    """Return the rules of a message type, read from its options once."""
    if (known := _plans.get(descriptor)) is not None:
        return known
    rules, required = pool.FindExtensionByName("validate.rules"), pool.FindExtensionByName("validate.required")
    field_options = GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FieldOptions"))
    oneof_options = GetMessageClass(pool.FindMessageTypeByName("google.protobuf.OneofOptions"))
    fields: list[tuple[FieldDescriptor, Any]] = []
    for field in descriptor.fields:
        # Options come as a message of the default pool, which does not know the extension: read them in ours.
        options: Any = field_options.FromString(field.GetOptions().SerializeToString())
        rule = options.Extensions[rules] if options.HasExtension(rules) else None
        if rule is not None or field.message_type is not None:
            fields.append((field, rule))
    oneofs: list[str] = []
    for oneof in descriptor.oneofs:
        options = oneof_options.FromString(oneof.GetOptions().SerializeToString())
        if options.HasExtension(required) and options.Extensions[required]:
            oneofs.append(oneof.name)
    plan = _plans[descriptor] = _Plan(tuple(fields), tuple(oneofs))
    return plan


def _violations(message: Message, path: str, pool: DescriptorPool) -> Iterator[str]:
    plan = _plan(message.DESCRIPTOR, pool)
    for oneof in plan.oneofs:
        if message.WhichOneof(oneof) is None:
            names = ", ".join(field.name for field in message.DESCRIPTOR.oneofs_by_name[oneof].fields)
            yield f"{path or 'the message'} must have one of: {names}"
    for field, rule in plan.fields:
        yield from _field(message, field, rule, f"{path}.{field.name}" if path else field.name, pool)


def _field(message: Message, field: FieldDescriptor, rule: Any, path: str, pool: DescriptorPool) -> Iterator[str]:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from _map(value, field, rule and rule.map, path, pool)
    elif field.is_repeated:
        yield from _repeated(value, field, rule and rule.repeated, path, pool)
    elif field.has_presence and not message.HasField(field.name):
        # ``required`` on a member of a oneof speaks only once that member is the chosen one.
        if rule is not None and field.containing_oneof is None and _required(rule):
            yield f"{path} is missing"
    else:
        yield from _value(value, field, rule, path, pool)


def _required(rule: Any) -> bool:
    kind = rule.WhichOneof("type")
    return bool(rule.message.required or (kind in ("any", "duration", "timestamp") and getattr(rule, kind).required))


def _map(entries: Any, field: Any, rule: Any, path: str, pool: DescriptorPool) -> Iterator[str]:
    key_field, value_field = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    keys = rule.keys if rule is not None and rule.HasField("keys") else None
    values = rule.values if rule is not None and rule.HasField("values") else None
    if rule is not None:
        yield from _size(len(entries), rule, "min_pairs", "max_pairs", "entries", path)
    for key in sorted(entries):
        yield from _value(key, key_field, keys, f"{path} (the key {key!r})", pool)
        yield from _value(entries[key], value_field, values, f"{path}[{key!r}]", pool)


def _repeated(items: Any, field: FieldDescriptor, rule: Any, path: str, pool: DescriptorPool) -> Iterator[str]:
    each = None
    if rule is not None:
        yield from _size(len(items), rule, "min_items", "max_items", "items", path)
        if rule.unique and len(set(items)) != len(items):
            yield f"{path} has an item twice"
        each = rule.items if rule.HasField("items") else None
    if each is not None or field.message_type is not None:
        for index, item in enumerate(items):
            yield from _value(item, field, each, f"{path}[{index}]", pool)


def _size(count: int, rule: Any, least: str, most: str, what: str, path: str) -> Iterator[str]:
    if rule.HasField(least) and count < getattr(rule, least):
        yield f"{path} has {count} {what}, fewer than {getattr(rule, least)}"
    if rule.HasField(most) and count > getattr(rule, most):
        yield f"{path} has {count} {what}, more than {getattr(rule, most)}"


def _value(value: Any, field: FieldDescriptor, rule: Any, path: str, pool: DescriptorPool) -> Iterator[str]:
    """Check one value that is there: its own rules, then, for a message, what is inside."""
    kind = rule.WhichOneof("type") if rule is not None else None
    inner = field.message_type
    if kind is not None:
        known = value.value if inner is not None and inner.full_name in _WRAPPERS else value
        yield from _scalar(known, kind, getattr(rule, kind), field, path)
    if inner is None or (rule is not None and rule.message.skip):
        return
    if inner.full_name == "google.protobuf.Any":
        yield from _any(value, path, pool)
    else:
        yield from _violations(value, path, pool)


def _any(value: Any, path: str, pool: DescriptorPool) -> Iterator[str]:
    name = value.type_url.rpartition("/")[2]
    if not name:
        return
    try:
        content = GetMessageClass(pool.FindMessageTypeByName(name)).FromString(value.value)
    except KeyError:
        yield f"{path} has a type that is not known: {value.type_url}"
    except DecodeError:
        yield f"{path} does not hold a {name}"
    else:
        yield from _violations(content, path, pool)


def _scalar(value: Any, kind: str, rule: Any, field: Any, path: str) -> Iterator[str]:
    if kind in ("string", "bytes") and rule.ignore_empty and not value:
        return
    if kind == "duration":
        yield from _bounds(
            _nanos(value), ((name.name, _nanos(limit)) for name, limit in rule.ListFields() if name.message_type), path
        )
    elif kind == "enum" and rule.defined_only and value not in field.enum_type.values_by_number:
        yield f"{path} is {value}, which is not a value of {field.enum_type.name}"
    elif (
        kind == "string" and (known := _WELL_KNOWN.get((rule.well_known_regex, rule.strict))) and not known.match(value)
    ):
        yield f"{path} is {value!r}, which is not allowed in a header"
    for option, limit in rule.ListFields():
        name = option.name
        if kind in _NUMBERS and name in _BOUNDS:
            yield from _bounds(value, [(name, limit)], path)
        elif check := _CHECKS.get((kind, name)):
            holds, words = check
            if not holds(value, limit):
                shown = list(limit) if name in ("in", "not_in") else limit
                yield f"{path} is {value!r}; it must {words} {shown!r}"
        elif name not in _HANDLED:
            yield f"{path} has the rule {kind}.{name}, which is not known here"


def _nanos(duration: Any) -> int:
    return int(duration.seconds) * 1_000_000_000 + int(duration.nanos)


def _bounds(value: float, limits: Iterable[tuple[str, float]], path: str) -> Iterator[str]:
    for name, limit in limits:
        holds, words = _BOUNDS[name]
        if not holds(value, limit):
            yield f"{path} is {value}, which is not {words} {limit}"


_BOUNDS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "gte": (lambda value, limit: value >= limit, "at least"),
    "gt": (lambda value, limit: value > limit, "more than"),
    "lte": (lambda value, limit: value <= limit, "at most"),
    "lt": (lambda value, limit: value < limit, "less than"),
}
_CHECKS: dict[tuple[str, str], tuple[Callable[[Any, Any], bool], str]] = {
    ("string", "min_len"): (lambda value, limit: len(value) >= limit, "have a length of at least"),
    ("string", "max_len"): (lambda value, limit: len(value) <= limit, "have a length of at most"),
    ("string", "min_bytes"): (lambda value, limit: len(value.encode()) >= limit, "have a size of at least"),
    ("string", "max_bytes"): (lambda value, limit: len(value.encode()) <= limit, "have a size of at most"),
    ("string", "pattern"): (lambda value, limit: re.search(limit, value) is not None, "match"),
    ("string", "prefix"): (lambda value, limit: value.startswith(limit), "begin with"),
    ("string", "suffix"): (lambda value, limit: value.endswith(limit), "end with"),
    ("string", "in"): (lambda value, limit: value in limit, "be one of"),
    ("string", "not_in"): (lambda value, limit: value not in limit, "not be one of"),
    ("bytes", "min_len"): (lambda value, limit: len(value) >= limit, "have a length of at least"),
    ("bytes", "max_len"): (lambda value, limit: len(value) <= limit, "have a length of at most"),
    ("bool", "const"): (lambda value, limit: value == limit, "be"),
    ("enum", "in"): (lambda value, limit: value in limit, "be one of"),
    ("enum", "not_in"): (lambda value, limit: value not in limit, "not be one of"),
    ("any", "in"): (lambda value, limit: value.type_url in limit, "be one of"),
    ("any", "not_in"): (lambda value, limit: value.type_url not in limit, "not be one of"),
}
_HANDLED = frozenset({*_BOUNDS, "well_known_regex", "defined_only", "required", "ignore_empty", "strict"})
"""Rules that are looked at elsewhere, or that only say how another one is meant."""
