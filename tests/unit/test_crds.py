"""The resource definitions: current, described, bounded, structural."""

from collections.abc import Iterator
from typing import Any

import pytest

from serinus.api.crds import RESOURCES, Resource, definition, main, render
from serinus.api.rules import RULES

Schema = dict[str, Any]


def parts(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from parts(below, f"{path}.{name}")
    if "items" in schema:
        yield from parts(schema["items"], f"{path}[]")


def schema_of(resource: Resource) -> Schema:
    (version,) = definition(resource)["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


EVERY_RESOURCE = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)


def test_the_files_are_what_the_models_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


@EVERY_RESOURCE
def test_every_field_has_a_description_without_line_breaks(resource: Resource) -> None:
    poor = [
        path
        for path, schema in parts(schema_of(resource), resource.kind)
        if not path.endswith(("[]", ".metadata")) and not schema.get("description", "").endswith(".")
    ]
    assert not poor
    assert not [path for path, schema in parts(schema_of(resource), "") if "\n" in schema.get("description", "")]


@EVERY_RESOURCE
def test_everything_in_a_spec_is_bounded_so_that_rules_have_a_bounded_cost(resource: Resource) -> None:
    unbounded = [
        path
        for path, schema in parts(schema_of(resource)["properties"]["spec"], "spec")
        if (schema["type"] == "array" and "maxItems" not in schema)
        or (schema["type"] == "string" and "maxLength" not in schema and "enum" not in schema)
    ]
    assert not unbounded


@EVERY_RESOURCE
def test_the_schema_is_structural(resource: Resource) -> None:
    for path, schema in parts(schema_of(resource), resource.kind):
        assert schema["type"] in {"object", "array", "string", "integer", "number", "boolean"}, path
        assert not {"$ref", "anyOf", "title", "const", "additionalProperties", "nullable"} & schema.keys(), path
        if schema["type"] == "object" and "properties" not in schema:
            assert path.endswith((".metadata", ".evidence", ".experiment")), path


@EVERY_RESOURCE
def test_a_status_holds_only_what_its_writer_wrote(resource: Resource) -> None:
    status = schema_of(resource)["properties"]["status"]
    assert not [path for path, schema in parts(status, "status") if "default" in schema]


@EVERY_RESOURCE
def test_a_block_whose_fields_all_have_defaults_has_the_default_of_an_empty_block(resource: Resource) -> None:
    for path, schema in parts(schema_of(resource), resource.kind):
        if schema["type"] == "object" and "default" in schema:
            assert schema["default"] == {}, path
            assert "required" not in schema, path


def test_every_rule_stands_beside_the_block_that_it_is_about() -> None:
    found = {
        (rule["rule"], rule["message"])
        for resource in RESOURCES
        for _, schema in parts(schema_of(resource)["properties"]["spec"], "spec")
        for rule in schema.get("x-kubernetes-validations", [])
    }
    assert found == {(rule.cel, rule.message) for rule in RULES if rule.cel}


def test_lists_whose_entries_have_names_are_merged_by_name() -> None:
    keys = {
        path: schema["x-kubernetes-list-map-keys"]
        for resource in RESOURCES
        for path, schema in parts(schema_of(resource), resource.kind)
        if schema.get("x-kubernetes-list-type") == "map"
    }
    assert keys == {
        "Canary.spec.analysis.metrics": ["name"],
        "Canary.spec.faults": ["name"],
        "Canary.status.commands": ["token"],
        "Canary.status.conditions": ["type"],
        "Canary.status.run.metrics": ["name"],
        "Canary.status.run.experiments[].metrics": ["name"],
        "TrafficPolicy.spec.routes": ["name"],
        "TrafficPolicy.status.conditions": ["type"],
    }


def test_only_the_evidence_keeps_fields_that_nobody_described() -> None:
    open_ended = [
        path
        for resource in RESOURCES
        for path, schema in parts(schema_of(resource), resource.kind)
        if "x-kubernetes-preserve-unknown-fields" in schema
    ]
    assert open_ended == ["Canary.status.run.evidence", "Canary.status.run.experiment"]


def test_no_field_is_called_like_a_yaml_word_for_true_or_false() -> None:
    # kubectl reads YAML 1.1: a field `on` would arrive as `true`.
    for resource in RESOURCES:
        for path, _ in parts(schema_of(resource), resource.kind):
            assert path.rsplit(".", 1)[-1].lower() not in {"on", "off", "yes", "no", "y", "n"}, path


def test_kubectl_get_shows_how_a_release_stands() -> None:
    columns = {resource.kind: [column["name"].upper() for column in resource.columns] for resource in RESOURCES}
    assert columns == {
        "Canary": ["TARGET", "READY", "PHASE", "WEIGHT", "STEP", "MESSAGE", "REASON", "AGE"],
        "TrafficPolicy": ["SERVICE", "READY", "PROXIES", "ACKNOWLEDGED", "FAULT", "AGE"],
    }


def test_a_file_reads_the_same_however_often_it_is_written() -> None:
    assert [render(resource) for resource in RESOURCES] == [render(resource) for resource in RESOURCES]
