import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contentv.base.errors import UserError, WorldError
from contentv.encoding import wire
from contentv.encoding.wire import CorruptReplyError, Ticket, decode_ticket, pack, unpack
from serving import BUILD, batch_of, equal, ticket

GOOD = ticket(3, 1)


def sent(record: pa.RecordBatch) -> pa.RecordBatch:
    """As it arrives: other memory, read-only."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, record.schema) as writer:
        writer.write_batch(record)
    with pa.ipc.open_stream(sink.getvalue()) as reader:
        return reader.read_next_batch()


def with_header(record: pa.RecordBatch, **changed: object) -> pa.RecordBatch:
    header = json.loads(record.schema.metadata[b"contentv"]) | changed
    return record.replace_schema_metadata({b"contentv": json.dumps(header).encode()})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_batch_arrives_as_it_was_sent(dtype: torch.dtype) -> None:
    whole = batch_of(GOOD)
    batch = replace(whole, sequence=whole.sequence.to(dtype), noise=whole.noise.transpose(3, 4))
    assert equal(unpack(sent(pack(batch, GOOD, BUILD)), GOOD), batch)


def test_what_arrives_can_be_written_to() -> None:
    arrived = unpack(sent(pack(batch_of(GOOD), GOOD, BUILD)), GOOD)
    arrived.latents.zero_()
    assert not arrived.latents.any()


def test_packing_does_not_copy() -> None:
    batch = batch_of(GOOD)
    record = pack(batch, GOOD, BUILD)
    addresses = [column.buffers()[2].address for column in record.columns]
    tensors = (batch.latents, batch.noise, batch.sigma, batch.sequence, batch.pooled)
    assert addresses == [tensor.data_ptr() for tensor in tensors]


def test_a_batch_that_no_message_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_REPLY_BYTES", 1000)
    with pytest.raises(WorldError, match="one message holds 1000"):
        pack(batch_of(GOOD), GOOD, BUILD)


@given(st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    record = pack(batch_of(GOOD), GOOD, BUILD)
    column = data.draw(st.integers(0, 4))
    content = bytearray(record.column(column)[0].as_buffer())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    columns = record.columns
    columns[column] = pa.array([bytes(content)], pa.large_binary())
    damaged = pa.RecordBatch.from_arrays(columns, schema=record.schema)
    with pytest.raises(CorruptReplyError, match="digest"):
        unpack(damaged, GOOD)


@pytest.mark.parametrize("other", [{"step": 4}, {"micro_batch": 0}, {"seed": 8}, {"build": "99"}])
def test_the_reply_to_another_ticket_is_refused(other: dict[str, object]) -> None:
    asked = GOOD.model_copy(update=other)
    with pytest.raises(CorruptReplyError, match="another ticket, or comes of another build"):
        unpack(pack(batch_of(GOOD), GOOD, BUILD), asked)


def test_the_reply_of_another_build_is_refused() -> None:
    with pytest.raises(CorruptReplyError, match="another build"):
        unpack(pack(batch_of(GOOD), GOOD, "99"), GOOD)


def test_what_the_header_says_is_under_the_digest() -> None:
    record = pack(batch_of(GOOD), GOOD, BUILD)
    for changed in ({"keys": ["x", "y"]}, {"build": "99"}, {"tensors": {}}, {"more": 1}):
        with pytest.raises(CorruptReplyError, match="digest"):
            unpack(with_header(record, **changed), GOOD)


@pytest.mark.parametrize(
    "record",
    [
        pa.record_batch({"a": [1]}),
        pack(batch_of(GOOD), GOOD, BUILD).replace_schema_metadata({}),
        pack(batch_of(GOOD), GOOD, BUILD).replace_schema_metadata({b"contentv": b"[]"}),
        pack(batch_of(GOOD), GOOD, BUILD).replace_schema_metadata({b"contentv": b"{" * 5000}),
        pack(batch_of(GOOD), GOOD, BUILD).replace_schema_metadata({b"contentv": b" " * 2**21}),
        pack(batch_of(GOOD), GOOD, BUILD).slice(0, 0),
    ],
)
def test_what_is_no_batch_is_refused(record: pa.RecordBatch) -> None:
    with pytest.raises(CorruptReplyError, match="not a batch"):
        unpack(record, GOOD)


def test_a_ticket_survives_the_way() -> None:
    assert decode_ticket(GOOD.encode()) == GOOD


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"step": -1}, "step=-1"),
        ({"step": 2**40}, "step=1099511627776"),
        ({"step": 10**300}, "step="),
        ({"step": 1.5}, "step=1.5"),
        ({"step": "1"}, "step=1"),
        ({"step": True}, "step=True"),
        ({"step": None}, "step=None"),
        ({"seed": 2**63}, "seed="),
        ({"group": 2, "groups": 2}, "group=2: must be below groups=2"),
        ({"groups": 0}, "groups=0"),
        ({"micro_batch": 2**20}, "micro_batch="),
        ({"stage": "../../etc"}, "stage="),
        ({"stage": "a\nb"}, "stage="),
        ({"plan": "X"}, "plan=X"),
        ({"plan": ""}, "plan="),
        ({"command": "rm"}, "command: there is no such setting"),
    ],
)
def test_a_ticket_out_of_bounds_is_refused(changed: dict[str, object], said: str) -> None:
    data = json.dumps(GOOD.model_dump() | changed).encode()
    with pytest.raises(UserError, match=r"^not a ticket: ") as caught:
        decode_ticket(data)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_giant_ticket_is_not_read() -> None:
    with pytest.raises(UserError, match="a ticket of 5000 bytes: at most 1024 are read"):
        decode_ticket(b"{" * 5000)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_noise_is_not_a_ticket(data: bytes) -> None:
    with pytest.raises(UserError):
        decode_ticket(data)


def test_no_reply_is_executed(tmp_path: Path) -> None:
    """What another program would unpickle is only bytes here."""
    evil = b"cos\nsystem\n(S'touch %s/executed'\ntR." % bytes(tmp_path)
    with pytest.raises(UserError):
        decode_ticket(evil)
    record = pa.record_batch({name: pa.array([evil], pa.large_binary()) for name in "abcde"})
    with pytest.raises(CorruptReplyError):
        unpack(record, GOOD)
    assert list(tmp_path.iterdir()) == []


def test_tickets_are_values() -> None:
    assert {Ticket(**GOOD.model_dump()), GOOD} == {GOOD}
