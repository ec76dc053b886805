"""Structural schemas, as Kubernetes wants them, out of the pydantic models.

Kubernetes' schemas have no references and no unions: references are put in place, an optional field is simply not
required (the API server removes nulls before it fills in defaults), a sub-object whose fields all have defaults has
the default ``{}``, and the rules of ``serinus.api.rules`` become CEL beside the object that they are about.
"""

from functools import cache
from typing import Any

from pydantic import BaseModel

from serinus.api.rules import rules_of

Schema = dict[str, Any]

_KEPT = (
    "description", "type", "enum", "default", "pattern", "minLength", "maxLength", "minimum", "exclusiveMinimum",
    "maximum", "exclusiveMaximum", "minItems", "maxItems",
)  # fmt: skip

_MAP_KEYS = {"conditions": "type", "metrics": "name", "routes": "name", "commands": "token", "faults": "name"}
"""Lists whose entries are told apart by one field, so that several writers can each apply their own entries."""


@cache
def structural(model: type[BaseModel], *, with_defaults: bool = True) -> Schema:
    """Return the structural schema of a model, with a description on every field and CEL for every rule.

    Without ``with_defaults`` the API server fills in nothing: in a status only what its writer wrote may stand.
    """
    raw = model.model_json_schema(by_alias=True)
    return _Converter(raw.get("$defs", {}), with_defaults).convert(raw)


class _Converter:
    def __init__(self, definitions: dict[str, Schema], with_defaults: bool) -> None:
        self._definitions = definitions
        self._with_defaults = with_defaults

    def convert(self, raw: Schema, field: str = "") -> Schema:
        raw = self._resolved(raw)
        out = {key: raw[key] for key in _KEPT if key in raw}
        if "description" in out:
            out["description"] = " ".join(out["description"].split())
        if "const" in raw:
            out["enum"] = [raw["const"]]
        for bound in ("Minimum", "Maximum"):
            if f"exclusive{bound}" in out:
                out[bound.lower()], out[f"exclusive{bound}"] = out[f"exclusive{bound}"], True
        self._set_default(out, raw)
        if "properties" in raw:
            out["properties"] = {name: self.convert(sub, name) for name, sub in raw["properties"].items()}
            if required := raw.get("required"):
                out["required"] = required
            out |= _validations(raw["title"])
        elif out.get("type") == "object":
            out["x-kubernetes-preserve-unknown-fields"] = True
        if out.get("type") == "array":
            out["items"] = self.convert(raw["items"])
            if field in _MAP_KEYS and "properties" in out["items"]:
                out["x-kubernetes-list-type"] = "map"
                out["x-kubernetes-list-map-keys"] = [_MAP_KEYS[field]]
            else:
                out["x-kubernetes-list-type"] = "atomic"
        return out

    def _resolved(self, raw: Schema) -> Schema:
        """Put references and the one real branch of an optional field in place; the field's own words win."""
        if "$ref" in raw:
            target = self._definitions[raw["$ref"].removeprefix("#/$defs/")]
            return self._resolved(target | {key: value for key, value in raw.items() if key != "$ref"})
        if "anyOf" in raw:
            (branch,) = [option for option in raw["anyOf"] if option.get("type") != "null"]
            return self._resolved(branch | {key: value for key, value in raw.items() if key not in ("anyOf", "title")})
        return raw

    def _set_default(self, out: Schema, raw: Schema) -> None:
        if out.get("default") is None or not self._with_defaults:
            out.pop("default", None)
        elif "properties" in raw:
            out["default"] = {}


def _validations(title: str) -> Schema:
    found = []
    for rule in rules_of(title):
        if rule.cel:
            where = {"fieldPath": f".{rule.field}"} if rule.field else {}
            found.append({"rule": rule.cel, "message": rule.message} | where)
    return {"x-kubernetes-validations": found} if found else {}
