"""The check of the protocol refuses every change that an older or newer build could not read."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.text_format import Parse

ROOT = Path(__file__).resolve().parents[2]

RELEASED = """
file {
  name: "a.proto" package: "p" syntax: "proto3"
  message_type {
    name: "M"
    field { name: "id" number: 1 type: TYPE_UINT64 label: LABEL_OPTIONAL }
    field { name: "dims" number: 2 type: TYPE_UINT32 label: LABEL_REPEATED }
    field { name: "kind" number: 3 type: TYPE_ENUM type_name: ".p.Kind" label: LABEL_OPTIONAL }
    field { name: "text" number: 4 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
    field { name: "blob" number: 5 type: TYPE_BYTES label: LABEL_OPTIONAL oneof_index: 0 }
    oneof_decl { name: "value" }
    nested_type { name: "N" field { name: "x" number: 1 type: TYPE_FLOAT label: LABEL_OPTIONAL } }
    reserved_range { start: 9 end: 10 }
    reserved_name: "old"
  }
  enum_type { name: "Kind" value { name: "KIND_UNSPECIFIED" number: 0 } value { name: "KIND_A" number: 1 } }
  service {
    name: "S"
    method { name: "Do" input_type: ".p.M" output_type: ".p.M" }
    method { name: "List" input_type: ".p.M" output_type: ".p.M" server_streaming: true }
  }
}
"""

Incompatibilities = Callable[[FileDescriptorSet, FileDescriptorSet], Iterator[str]]


def parsed(text: str) -> FileDescriptorSet:
    return Parse(text, FileDescriptorSet())


@pytest.fixture
def incompatibilities(monkeypatch: pytest.MonkeyPatch) -> Incompatibilities:
    monkeypatch.syspath_prepend(ROOT / "proto")
    import check

    return check.incompatibilities


def test_nothing_is_wrong_with_the_same_descriptor(incompatibilities: Incompatibilities):
    assert list(incompatibilities(parsed(RELEASED), parsed(RELEASED))) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            'oneof_decl { name: "value" }',
            'oneof_decl { name: "value" }\nfield { name: "more" number: 7 type: TYPE_BOOL }',
        ),
        ('value { name: "KIND_A" number: 1 }', 'value { name: "KIND_A" number: 1 } value { name: "KIND_B" number: 2 }'),
        ('name: "S"', 'name: "S" method { name: "New" input_type: ".p.M" output_type: ".p.M" }'),
        ("\n  service {", '\n  message_type { name: "Later" }\n  service {'),
        ('name: "a.proto"', 'name: "renamed.proto"'),
        (
            'field { name: "id" number: 1 type: TYPE_UINT64 label: LABEL_OPTIONAL }',
            'reserved_range { start: 1 end: 2 } reserved_name: "id"',
        ),
    ],
    ids=["field", "value", "method", "message", "file renamed", "field reserved"],
)
def test_additions_pass(incompatibilities: Incompatibilities, old: str, new: str):
    assert old in RELEASED
    assert list(incompatibilities(parsed(RELEASED), parsed(RELEASED.replace(old, new)))) == []


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('field { name: "dims" number: 2 type: TYPE_UINT32 label: LABEL_REPEATED }', "", "field p.M.dims = 2 is gone"),
        (
            'field { name: "dims" number: 2 type: TYPE_UINT32 label: LABEL_REPEATED }',
            "reserved_range { start: 2 end: 3 }",
            "field p.M.dims = 2 is gone",
        ),
        ('name: "dims" number: 2', 'name: "dims" number: 6', "field p.M.dims = 2 is gone"),
        ('name: "dims"', 'name: "sizes"', "field p.M.dims changed its name from dims to sizes"),
        ("TYPE_UINT64", "TYPE_SINT64", "field p.M.id changed its type from TYPE_UINT64 to TYPE_SINT64"),
        ("LABEL_REPEATED", "LABEL_OPTIONAL", "field p.M.dims changed its cardinality"),
        ('".p.Kind" label', '".p.Sort" label', "field p.M.kind changed its type from .p.Kind to .p.Sort"),
        (
            "oneof_index: 0 }\n    oneof_decl",
            "}\n    oneof_decl",
            "field p.M.blob changed its oneof from value to none",
        ),
        (
            "TYPE_UINT64 label: LABEL_OPTIONAL",
            "TYPE_UINT64 label: LABEL_OPTIONAL proto3_optional: true oneof_index: 1",
            "field p.M.id changed its presence from implicit to explicit",
        ),
        ('oneof_decl { name: "value" }', 'oneof_decl { name: "other" }', "field p.M.text changed its oneof"),
        (
            'field { name: "dims"',
            'field { name: "new" number: 9 type: TYPE_BOOL } field { name: "dims"',
            "field p.M.new = 9 takes a reserved number",
        ),
        (
            'field { name: "dims"',
            'field { name: "old" number: 8 type: TYPE_BOOL } field { name: "dims"',
            "field p.M.old = 8 takes a reserved name",
        ),
        (
            'name: "x" number: 1 type: TYPE_FLOAT',
            'name: "x" number: 1 type: TYPE_DOUBLE',
            "field p.M.N.x changed its type",
        ),
        ('name: "N"', 'name: "NN"', "message p.M.N is gone"),
        ('name: "Kind"', 'name: "Sort"', "enum p.Kind is gone"),
        ('value { name: "KIND_A" number: 1 }', "", "value p.Kind.KIND_A = 1 is gone"),
        ('"KIND_A" number: 1', '"KIND_A" number: 2', "value p.Kind.KIND_A changed its number from 1 to 2"),
        ('name: "S"', 'name: "T"', "service p.S is gone"),
        ('name: "Do"', 'name: "Did"', "method p.S.Do is gone"),
        ("server_streaming: true", "", "method p.S.List changed its messages or its streaming"),
        ('package: "p"', 'package: "q"', "message p.M is gone"),
    ],
)
def test_every_other_change_is_refused(incompatibilities: Incompatibilities, old: str, new: str, sentence: str):
    assert old in RELEASED
    changed = RELEASED.replace(old, new, 1)
    if "proto3_optional" in new:
        changed = changed.replace(
            'oneof_decl { name: "value" }', 'oneof_decl { name: "value" } oneof_decl { name: "_id" }'
        )
    assert any(line.startswith(sentence) for line in incompatibilities(parsed(RELEASED), parsed(changed)))
