"""The protocol: every message survives the wire, and a message that is not as declared is refused."""

from __future__ import annotations

import dataclasses
import importlib
import json
import types
import typing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.case import Case
from harness.checked import Location
from harness.process import protocol
from harness.process.protocol import Failure, ProtocolError, Request, Started
from harness.worker.main import ROLES

REQUESTS = protocol.request_types()
#: A few examples suffice for each of the dozens of classes.
FEW = settings(max_examples=10, deadline=None)
NONCE = "0123456789abcdef"


def reply_class(request_class: type) -> type:
    return protocol.reply_type(request_class.__new__(request_class))


REPLIES = {kind.__name__: kind for kind in (*map(reply_class, REQUESTS.values()), Failure, Started)}
CASES = st.builds(
    Case,
    *[st.integers(1, 9)] * 4,
    bias=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    mode=st.sampled_from(["forward", "forward_backward"]),
    seed=st.integers(0, 9),
)


def values(kind: object) -> st.SearchStrategy:
    """Return values of a declared type."""
    arguments = typing.get_args(kind)
    match typing.get_origin(kind):
        case types.UnionType | typing.Union:
            return st.one_of(map(values, arguments))
        case origin if origin is tuple:
            return st.lists(values(arguments[0]), max_size=2).map(tuple)
        case origin if origin is dict:
            return st.dictionaries(st.text(max_size=5), values(arguments[1]), max_size=2)
    if kind is Case:
        return CASES
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{field.name: values(hints[field.name]) for field in dataclasses.fields(kind)})
    simple = {
        bool: st.booleans(),
        int: st.integers(),
        float: st.floats(allow_nan=False),
        str: st.text(max_size=5),
        type(None): st.none(),
        Path: st.sampled_from([Path("/results/of/a/call"), Path("relative")]),
    }
    return simple[kind]


def reply_line(fields: object) -> bytes:
    return json.dumps({"id": NONCE, "failed": False, "reply": fields}).encode() + b"\n"


@pytest.mark.parametrize("name", sorted(REQUESTS))
@FEW
@given(data=st.data())
def test_every_request_survives_the_wire(name, data):
    request = data.draw(values(REQUESTS[name]))
    assert protocol.decode_request(protocol.encode_request(NONCE, request)) == (NONCE, request)


@pytest.mark.parametrize("name", sorted(REPLIES))
@FEW
@given(data=st.data())
def test_every_reply_survives_the_wire(name, data):
    reply = data.draw(values(REPLIES[name]))
    line = protocol.encode_reply(NONCE, reply)
    assert line.count(b"\n") == 1
    decoded = protocol.decode_reply(line, NONCE, type(reply))
    assert (decoded, type(decoded)) == (reply, type(reply))


@pytest.mark.parametrize("name", sorted(REPLIES))
@FEW
@given(data=st.data())
def test_a_reply_without_one_of_its_fields_is_refused(name, data):
    kind = REPLIES[name]
    reply = data.draw(values(kind))
    fields = protocol.encode(reply)
    for field in fields:
        line = reply_line({other: value for other, value in fields.items() if other != field})
        with pytest.raises(ProtocolError, match=kind.__name__):
            protocol.decode_reply(line, NONCE, kind)
    with pytest.raises(ProtocolError, match=kind.__name__):
        protocol.decode_reply(reply_line(fields | {"surplus": 1}), NONCE, kind)


@pytest.mark.parametrize("name", sorted(REPLIES))
@FEW
@given(data=st.data())
def test_a_reply_with_a_field_of_a_wrong_type_is_refused(name, data):
    kind = REPLIES[name]
    reply = data.draw(values(kind))
    fields, hints = protocol.encode(reply), typing.get_type_hints(kind)
    for field in fields:
        # A union field never has a list of objects.
        wrong = [{"no": "such thing"}] if typing.get_origin(hints[field]) is not tuple else "a text"
        with pytest.raises(ProtocolError):
            protocol.decode_reply(reply_line(fields | {field: wrong}), NONCE, kind)


def test_true_is_no_number_and_one_is_not_true():
    for kind, wrong in ((protocol.SampleTaken, True), (protocol.Released, 1)):
        field = dataclasses.fields(kind)[0].name
        whole = {other.name: 0 for other in dataclasses.fields(kind)} | {field: wrong}
        with pytest.raises(ProtocolError, match="is not of type"):
            protocol.decode(kind, whole)


def test_a_reply_to_another_request_is_refused():
    line = protocol.encode_reply("another", protocol.Done())
    with pytest.raises(ProtocolError, match="a reply to another request"):
        protocol.decode_reply(line, NONCE, protocol.Done)


@pytest.mark.parametrize("line", [b"", b"nonsense\n", b"[]\n", b"3\n", b"\xff\n", b'{"id": "0123456789abcdef"}\n'])
def test_what_is_no_message_is_refused(line):
    with pytest.raises(ProtocolError):
        protocol.decode_reply(line, NONCE, protocol.Done)
    with pytest.raises(ProtocolError):
        protocol.decode_request(line)


def test_a_failure_stands_in_for_any_reply():
    failure = Failure("ValueError: no", Location("kernel.py", 3, "f"), "Traceback ...", out_of_memory=True)
    line = protocol.encode_reply(NONCE, failure)
    for kind in REPLIES.values():
        assert protocol.decode_reply(line, NONCE, kind) == failure


def test_every_request_is_handled_by_exactly_one_worker():
    workers = [getattr(importlib.import_module(module), name)() for module, name in ROLES.values()]
    handled = [kind for worker in workers for kind in worker.handlers]
    assert sorted(kind.__name__ for kind in handled) == sorted(REQUESTS)


def test_messages_are_frozen_and_names_of_requests_are_unique():
    declared = [kind for kind in vars(protocol).values() if isinstance(kind, type) and issubclass(kind, Request)]
    assert set(declared) - {Request} == set(REQUESTS.values())
    assert len({kind.__name__ for kind in declared}) == len(declared)
    for kind in (*REQUESTS.values(), *REPLIES.values()):
        assert kind.__dataclass_params__.frozen
        assert not hasattr(kind.__new__(kind), "__dict__"), f"{kind.__name__} has slots"
