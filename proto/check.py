"""Checks that ``proto/vecdb/v1`` only ever grows, and that ``vecdb/v1`` is what it generates.

A message on the wire or in a log may be read by an older or a newer build: so against the last released descriptor
(``proto/released.binpb``) no message, field, oneof, enum, value, service or method may be missing, and none may change
its number, type, cardinality or membership in a oneof. A field may go only if its number and its name are both
reserved. ``--release`` stores the present descriptor as the released one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from generate import PROTO, generate, generated, protoc, sources
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

RELEASED = PROTO / "released.binpb"


def described() -> FileDescriptorSet:
    """The present .proto files, compiled."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "now.binpb"
        protoc(f"--descriptor_set_out={out}", *map(str, sources()))
        return FileDescriptorSet.FromString(out.read_bytes())


def incompatibilities(released: FileDescriptorSet, now: FileDescriptorSet) -> Iterator[str]:
    """Each way, in one sentence, in which ``now`` cannot read what ``released`` wrote or the other way round.

    A declaration may move from one file to another of the same package: names are compared, files are not.
    """
    old_messages, old_enums, old_services = _declarations(released)
    messages, enums, services = _declarations(now)
    for name, old in old_messages.items():
        if name not in messages:
            yield f"message {name} is gone"
        else:
            yield from _message(name, old, messages[name])
    for name, old_enum in old_enums.items():
        if name not in enums:
            yield f"enum {name} is gone"
        else:
            yield from _enum(name, old_enum, enums[name])
    for name, old_service in old_services.items():
        if name not in services:
            yield f"service {name} is gone"
        else:
            yield from _service(name, old_service, services[name])


def stale(root: Path) -> Iterator[str]:
    """Each file of ``root``/vecdb/v1 that is missing, superfluous or not as generated."""
    with tempfile.TemporaryDirectory() as folder:
        fresh_root = Path(folder)
        generate(fresh_root)
        fresh = {path.relative_to(fresh_root): path.read_bytes() for path in generated(fresh_root)}
    present = {path.relative_to(root): path.read_bytes() for path in generated(root)}
    for path in sorted(fresh.keys() | present.keys()):
        if path not in present:
            yield f"{path} is missing: run `make proto`"
        elif path not in fresh:
            yield f"{path} has no source: run `make proto`"
        elif present[path] != fresh[path]:
            yield f"{path} is not what proto/ generates: run `make proto`"


_Declarations = tuple[
    dict[str, DescriptorProto],
    dict[str, EnumDescriptorProto],
    dict[str, ServiceDescriptorProto],
]


def _declarations(files: FileDescriptorSet) -> _Declarations:
    messages: dict[str, DescriptorProto] = {}
    enums: dict[str, EnumDescriptorProto] = {}
    services: dict[str, ServiceDescriptorProto] = {}

    def enter(prefix: str, message: DescriptorProto) -> None:
        name = f"{prefix}.{message.name}"
        messages[name] = message
        enums.update({f"{name}.{enum.name}": enum for enum in message.enum_type})
        for nested in message.nested_type:
            enter(name, nested)

    for file in files.file:
        for message in file.message_type:
            enter(file.package, message)
        enums.update({f"{file.package}.{enum.name}": enum for enum in file.enum_type})
        services.update({f"{file.package}.{service.name}": service for service in file.service})
    return messages, enums, services


def _message(name: str, old: DescriptorProto, now: DescriptorProto) -> Iterator[str]:
    fields = {field.number: field for field in now.field}
    reserved_names = set(now.reserved_name)
    for field in old.field:
        found = fields.get(field.number)
        if found is not None:
            yield from _field(f"{name}.{field.name}", _shape(old, field), _shape(now, found))
        elif field.name not in reserved_names or not _reserved(now, field.number):
            yield f"field {name}.{field.name} = {field.number} is gone, and its number and name are not both reserved"
    for span in old.reserved_range:
        for number in fields:
            if span.start <= number < span.end:
                yield f"field {name}.{fields[number].name} = {number} takes a reserved number"
    for field in now.field:
        if field.name in old.reserved_name:
            yield f"field {name}.{field.name} = {field.number} takes a reserved name"


def _reserved(message: DescriptorProto, number: int) -> bool:
    return any(span.start <= number < span.end for span in message.reserved_range)


def _shape(message: DescriptorProto, field: FieldDescriptorProto) -> dict[str, str]:
    """What must not change in a field, by what it is called in a report."""
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else "none"
    return {
        "name": field.name,
        "type": field.type_name or FieldDescriptorProto.Type.Name(field.type),
        "cardinality": FieldDescriptorProto.Label.Name(field.label),
        "presence": "explicit" if field.proto3_optional else "implicit",
        "oneof": "none" if field.proto3_optional else oneof,
    }


def _field(name: str, old: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    for property_, value in old.items():
        if now[property_] != value:
            yield f"field {name} changed its {property_} from {value} to {now[property_]}"


def _enum(name: str, old: EnumDescriptorProto, now: EnumDescriptorProto) -> Iterator[str]:
    numbers = {value.name: value.number for value in now.value}
    for value in old.value:
        if value.name not in numbers:
            yield f"value {name}.{value.name} = {value.number} is gone"
        elif numbers[value.name] != value.number:
            yield f"value {name}.{value.name} changed its number from {value.number} to {numbers[value.name]}"


def _service(name: str, old: ServiceDescriptorProto, now: ServiceDescriptorProto) -> Iterator[str]:
    methods = {method.name: method for method in now.method}
    for method in old.method:
        found = methods.get(method.name)
        if found is None:
            yield f"method {name}.{method.name} is gone"
            continue
        before = (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
        after = (found.input_type, found.output_type, found.client_streaming, found.server_streaming)
        if before != after:
            yield f"method {name}.{method.name} changed its messages or its streaming"


def main() -> int:
    """Report every finding on standard output; 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", action="store_true", help="store the present descriptor as the released one")
    release = parser.parse_args().release
    if not sources():
        print("proto: no .proto file")
        return 1
    now = described()
    found = list(stale(PROTO.parent))
    if RELEASED.exists():
        found += incompatibilities(FileDescriptorSet.FromString(RELEASED.read_bytes()), now)
    else:
        print("proto: nothing was released yet, so nothing to be compatible with")
    for sentence in found:
        print(f"proto: {sentence}")
    if release and not found:
        RELEASED.write_bytes(now.SerializeToString(deterministic=True))
        print(f"proto: {RELEASED.name} is now the released descriptor")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
