"""The buffer of a command's input. The runner gets every byte once and in order, over broken connections."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_grpc.adapter import execs
from fal_grpc.errors import ArgumentError

SPEC = execs.ExecSpec(runner_id="r", command=["a", "b c"])


class Runner:
    """The runner: takes input as the shim does."""

    def __init__(self) -> None:
        self.taken = bytearray()
        self.ended = False
        self.received = 0

    def take(self, message) -> None:
        assert message.offset <= len(self.taken), "a gap"
        self.taken += message.data[len(self.taken) - message.offset :]
        self.ended = self.ended or message.eof
        if message.HasField("received_offset"):
            assert message.received_offset > self.received
            self.received = message.received_offset


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_byte_arrives_once_over_links_that_break(data):
    pieces = data.draw(st.lists(st.binary(min_size=1, max_size=300), max_size=12))
    buffer, runner = execs.InputBuffer(), Runner()
    sending = buffer.sending()
    for piece in pieces:
        buffer.add(piece)
        for _ in range(data.draw(st.integers(0, 3))):
            message = sending.next()
            if message is None:
                break
            if data.draw(st.booleans()):
                runner.take(message)
            else:  # lost with the connection; the next one learns what was taken
                buffer.taken(len(runner.taken))
                sending = buffer.sending()
        if data.draw(st.booleans()):
            buffer.taken(len(runner.taken))
    buffer.ended = True
    buffer.taken(len(runner.taken))
    sending = buffer.sending()
    while (message := sending.next()) is not None:
        runner.take(message)
    assert (bytes(runner.taken), runner.ended) == (b"".join(pieces), True)


def test_output_is_acknowledged_with_or_without_input():
    buffer, runner = execs.InputBuffer(), Runner()
    sending = buffer.sending()
    assert sending.next() is None
    buffer.received = 10
    runner.take(sending.next())
    assert (runner.received, sending.next()) == (10, None)
    buffer.received = 20
    buffer.add(b"x")
    runner.take(sending.next())
    assert (runner.received, bytes(runner.taken), sending.next()) == (20, b"x", None)


def test_input_after_attaching_goes_on_where_the_command_is():
    buffer = execs.InputBuffer()
    buffer.add(b"typed")
    buffer.resume_at(100)
    message = buffer.sending().next()
    assert message is not None
    assert (message.offset, message.data) == (100, b"typed")


def test_much_that_is_not_taken_makes_the_giver_wait():
    buffer = execs.InputBuffer()
    while not buffer.full:
        buffer.add(bytes(execs.CHUNK_BYTES))
    buffer.taken(execs.CHUNK_BYTES)
    assert not buffer.full


def test_a_foreign_controller_gets_directory_and_variables_by_a_shell():
    assert execs.wrapped(SPEC) == ["a", "b c"]
    spec = execs.ExecSpec(runner_id="r", command=["a", "b c"], cwd="/x y", env={"K": "v=w"})
    assert execs.wrapped(spec)[-4:] == ["/x y", "K=v=w", "a", "b c"]


@pytest.mark.parametrize(
    "wrong", [{"command": "ls -l"}, {"runner_id": ""}, {"timeout_seconds": 0.0}, {"env": {"A=B": "x"}}]
)
def test_what_cannot_be_is_refused_before_anything_is_sent(wrong):
    fields = {"runner_id": "r", "command": ["ls"], **wrong}
    with pytest.raises(ArgumentError):
        execs.start_request(execs.ExecSpec(**fields), "an-id-of-mine")


def test_a_controller_without_such_commands_gets_them_over_shell_runner(fake):
    from fal_grpc.controller import Controller
    from fal_grpc.errors import UnimplementedError
    from fal_grpc.target import parse_target
    from fal_grpc.v1 import runner_pb2
    from tests.client.support import KEY

    def answer(requests, _context):
        first = next(requests)
        yield runner_pb2.ShellRunnerOutput(data=" ".join(first.command).encode())
        yield runner_pb2.ShellRunnerOutput(exit_code=4)

    fake.answers["ShellRunner"] = answer
    with Controller(parse_target(fake.host), KEY) as controller:
        with controller.start_exec(SPEC) as session:
            assert b"".join(output.data for output in session) == b"a b c"
            assert session.wait() == 4
        with pytest.raises(UnimplementedError):
            controller.start_exec(execs.ExecSpec(runner_id="r", command=["a"], keep=True))
        with pytest.raises(UnimplementedError):
            controller.start_detached(SPEC)
