"""The package fal.v1 is wire-identical to the installed isolate-proto. A failure names what fal.v1 lacks."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
)
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

import fal_grpc.v1
from tests.support.contract import INTERNAL_SERVICES

FIRST_OWN_NUMBER = 1000

# In another process: isolate registers grpc.health.v1 under a file name that clashes with grpcio-health-checking.
_DUMP = """
import sys
from google.protobuf import descriptor_pb2
from isolate_proto import controller_pb2

out = descriptor_pb2.FileDescriptorSet()
seen = set()

def add(file):
    if file.name not in seen:
        seen.add(file.name)
        for needed in file.dependencies:
            add(needed)
        file.CopyToProto(out.file.add())

add(controller_pb2.DESCRIPTOR)
sys.stdout.buffer.write(out.SerializeToString())
"""


def dump_isolate() -> descriptor_pb2.FileDescriptorSet:
    """Return the descriptors of the installed isolate-proto, dependencies first."""
    done = subprocess.run([sys.executable, "-c", _DUMP], check=True, capture_output=True)
    return descriptor_pb2.FileDescriptorSet.FromString(done.stdout)


def controller_of(files: descriptor_pb2.FileDescriptorSet) -> ServiceDescriptor:
    """Return the IsolateController service, in a separate pool."""
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool.FindServiceByName("controller.IsolateController")


def own_services() -> list[ServiceDescriptor]:
    """Return every service of fal.v1, from the generated stubs."""
    modules = (f"fal_grpc.v1.{found.name}" for found in pkgutil.iter_modules(fal_grpc.v1.__path__))
    files = (importlib.import_module(name).DESCRIPTOR for name in modules if name.endswith("_pb2"))
    return [service for file in files for service in file.services_by_name.values()]


def own_methods() -> dict[str, list[MethodDescriptor]]:
    """Return the methods of fal.v1 that clients may call, by name."""
    found: dict[str, list[MethodDescriptor]] = {}
    for service in own_services():
        if service.name not in INTERNAL_SERVICES:
            for method in service.methods:
                found.setdefault(method.name, []).append(method)
    return found


def plain(item: Descriptor | EnumDescriptor) -> str:
    """Return a type's name with its outer types. Its package differs on purpose and is left out."""
    package = item.file.package
    return item.full_name if package.startswith("google.") else item.full_name.removeprefix(f"{package}.")


def shape(field: FieldDescriptor) -> dict[str, object]:
    """Return the properties of a field that matter. They matter on the wire, in JSON or to a reader."""
    oneof = field.containing_oneof
    kind = field.message_type or field.enum_type
    return {
        "name": field.name,
        "JSON name": field.json_name,
        "number": field.number,
        "type": field.type,
        "type name": plain(kind) if kind else "",
        "repeated": field.is_repeated,
        "packed": field.is_packed,
        "presence": field.has_presence,
        "oneof": oneof.name if oneof else "",
    }


class Comparison:
    """Compares their methods and all messages of these with ours. It collects the differences."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        self.messages: dict[str, tuple[Descriptor, Descriptor]] = {}

    def methods(self, theirs: ServiceDescriptor) -> None:
        """Compare every method of their service."""
        ours = own_methods()
        for method in theirs.methods:
            found = ours.get(method.name, [])
            if len(found) != 1:
                self.differences.append(
                    f"method {method.name}: in {[m.full_name for m in found] or 'no service'} of fal.v1"
                )
                continue
            mine = found[0]
            for word in ("client_streaming", "server_streaming"):
                if getattr(mine, word) != getattr(method, word):
                    self.differences.append(f"method {method.name}: {word} differs")
            self.message(mine.input_type, method.input_type, f"request of {method.name}")
            self.message(mine.output_type, method.output_type, f"response of {method.name}")

    def message(self, ours: Descriptor, theirs: Descriptor, where: str) -> None:
        """Compare a message and all messages in it."""
        if plain(ours) != plain(theirs):
            self.differences.append(f"{where}: {plain(theirs)} there, {plain(ours)} here")
            return
        name = plain(theirs)
        if name in self.messages or name.startswith("google."):
            return
        self.messages[name] = (ours, theirs)
        for number, field in theirs.fields_by_number.items():
            mine = ours.fields_by_number.get(number)
            if mine is None:
                self.differences.append(f"{name}.{field.name} ({number}): missing here")
                continue
            expected, actual = shape(field), shape(mine)
            for key, value in expected.items():
                if actual[key] != value:
                    self.differences.append(
                        f"{name}.{field.name} ({number}): {key} is {value} there, {actual[key]} here"
                    )
            if field.message_type and mine.message_type:
                self.message(mine.message_type, field.message_type, f"{name}.{field.name}")
            if field.enum_type and mine.enum_type:
                self.enum(mine.enum_type, field.enum_type)
        for number in set(ours.fields_by_number) - set(theirs.fields_by_number):
            if number < FIRST_OWN_NUMBER:
                field_name = ours.fields_by_number[number].name
                self.differences.append(f"{name}.{field_name} ({number}): own fields begin at {FIRST_OWN_NUMBER}")

    def enum(self, ours: EnumDescriptor, theirs: EnumDescriptor) -> None:
        """Compare an enum. It may have no values of ours, since older readers fail on them."""
        expected = {value.name: value.number for value in theirs.values}
        actual = {value.name: value.number for value in ours.values}
        if expected != actual:
            self.differences.append(f"enum {plain(theirs)}: {expected} there, {actual} here")


ISOLATE = dump_isolate()
CONTROLLER = controller_of(ISOLATE)
COMPARISON = Comparison()
COMPARISON.methods(CONTROLLER)


def test_every_method_message_field_and_enum_is_there() -> None:
    assert COMPARISON.differences == []


def test_the_walk_reaches_the_whole_contract() -> None:
    assert len(CONTROLLER.methods) == 25
    assert {
        "RunnerInfo",
        "EnvironmentDefinition",
        "SerializedObject",
        "MachineRequirements",
    } <= COMPARISON.messages.keys()


def message_of(files: descriptor_pb2.FileDescriptorSet, name: str) -> descriptor_pb2.DescriptorProto:
    """Return a message of theirs. The test changes it as a later isolate-proto might."""
    return next(item for file in files.file for item in file.message_type if item.name == name)


def add_field(files: descriptor_pb2.FileDescriptorSet) -> None:
    message_of(files, "StopRunnerRequest").field.add(
        name="later",
        number=3,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )


def change_type(files: descriptor_pb2.FileDescriptorSet) -> None:
    message_of(files, "RunnerInfo").field[3].type = descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE


def take_field(files: descriptor_pb2.FileDescriptorSet) -> None:
    del message_of(files, "KillRunnerRequest").field[0]


def add_state(files: descriptor_pb2.FileDescriptorSet) -> None:
    message_of(files, "RunnerInfo").enum_type[0].value.add(name="LATER", number=10)


def add_method(files: descriptor_pb2.FileDescriptorSet) -> None:
    service = next(file.service[0] for file in files.file if file.name == "controller.proto")
    service.method.add(name="Later", input_type=".controller.HostedRun", output_type=".controller.HostedRunResult")


def make_stream(files: descriptor_pb2.FileDescriptorSet) -> None:
    service = next(file.service[0] for file in files.file if file.name == "controller.proto")
    next(method for method in service.method if method.name == "ListRunners").server_streaming = True


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (add_field, "StopRunnerRequest.later (3): missing here"),
        (change_type, "RunnerInfo.uptime (4): type is 1 there, 2 here"),
        (take_field, "KillRunnerRequest.runner_id (1): own fields begin at 1000"),
        (add_state, "'LATER': 10"),
        (add_method, "method Later: in no service of fal.v1"),
        (make_stream, "method ListRunners: server_streaming differs"),
    ],
)
def test_a_difference_is_named(change: Callable[[descriptor_pb2.FileDescriptorSet], None], named: str) -> None:
    files = descriptor_pb2.FileDescriptorSet()
    files.CopyFrom(ISOLATE)
    change(files)
    comparison = Comparison()
    comparison.methods(controller_of(files))
    assert len(comparison.differences) == 1
    assert named in comparison.differences[0]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000).map(float) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_TIMES = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_STRING: st.text(max_size=8),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
}


def value_of(draw: st.DrawFn, field: FieldDescriptor) -> Any:
    """Draw a value for one element of a field. An enum may have an unknown number."""
    if field.enum_type:
        known = st.sampled_from([value.number for value in field.enum_type.values])
        return draw(known | st.integers(-(2**31), 2**31 - 1))
    if field.message_type:
        return draw(messages(field.message_type))
    return draw(_SCALARS[field.type])


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor) -> Message:
    """Draw a message with some fields set. At most one of each oneof is set."""
    message = message_factory.GetMessageClass(descriptor)()
    if descriptor.full_name == "google.protobuf.Struct":
        struct = struct_pb2.Struct()
        struct.update(draw(st.dictionaries(st.text(max_size=5), _JSON, max_size=3)))
        message.MergeFromString(struct.SerializeToString())
        return message
    if descriptor.full_name == "google.protobuf.Timestamp":
        time = timestamp_pb2.Timestamp()
        time.FromDatetime(draw(_TIMES))
        message.MergeFromString(time.SerializeToString())
        return message
    for field in descriptor.fields:
        if not draw(st.booleans()):
            continue
        if field.is_repeated:
            getattr(message, field.name).extend([value_of(draw, field) for _ in range(draw(st.integers(0, 2)))])
        elif field.message_type:
            getattr(message, field.name).CopyFrom(value_of(draw, field))
        else:
            setattr(message, field.name, value_of(draw, field))
    return message


@pytest.mark.parametrize("name", sorted(COMPARISON.messages))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_one_side_writes_the_other_reads(name: str, data: st.DataObject) -> None:
    ours, theirs = COMPARISON.messages[name]
    sent = data.draw(messages(theirs))
    received = message_factory.GetMessageClass(ours).FromString(sent.SerializeToString())
    assert json_format.MessageToDict(received) == json_format.MessageToDict(sent)
    answered = message_factory.GetMessageClass(theirs).FromString(received.SerializeToString())
    assert answered == sent


@pytest.mark.parametrize("name", sorted(COMPARISON.messages))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_we_add_passes_through_them_unharmed(name: str, data: st.DataObject) -> None:
    ours, theirs = COMPARISON.messages[name]
    sent = data.draw(messages(ours))
    passed = message_factory.GetMessageClass(theirs).FromString(sent.SerializeToString())
    returned = message_factory.GetMessageClass(ours).FromString(passed.SerializeToString())
    assert returned == sent
