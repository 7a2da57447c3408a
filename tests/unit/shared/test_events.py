"""Events: stored for ever, read in their newest form, and taken from an envelope only if it is one (design §3, §4)."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.events import Catalog, Event, Recorded, UnknownEvent, from_cloudevent

AT = datetime(2026, 11, 24, 12, 47, 14, 583_001, tzinfo=UTC)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


class Opened(Event):
    """Its third form: first it had a name, then an alias, then aliases."""

    schema_version = 3
    account: str
    aliases: tuple[str, ...]


class Closed(Event):
    account: str


def renamed(data: dict[str, Any]) -> dict[str, Any]:
    return {"account": data["account"], "alias": data["name"]}


def listed(data: dict[str, Any]) -> dict[str, Any]:
    return {"account": data["account"], "aliases": [data["alias"]]}


CATALOG = Catalog("ledger", Opened, Closed, upcasters={("Opened", 1): renamed, ("Opened", 2): listed})
OPENED = Opened(account="a", aliases=("x",))


def recorded(event: Event = OPENED, **changed: Any) -> Recorded:
    facts: dict[str, Any] = {
        "id": "an id",
        "service": "ledger",
        "stream": "account-a",
        "version": 1,
        "position": 7,
        "recorded_at": AT,
        "actor": "ada",
        "correlation_id": "c",
        "causation_id": None,
        "event": event,
    }
    return Recorded(**(facts | changed))


def test_an_event_never_changes() -> None:
    with pytest.raises(ValidationError):
        OPENED.account = "b"


def test_an_event_holds_its_own_fields_and_no_others() -> None:
    with pytest.raises(ValidationError):
        Closed.model_validate({"account": "a", "secret": "s"})


@pytest.mark.parametrize(
    ("version", "data"),
    [
        (1, {"account": "a", "name": "x"}),
        (2, {"account": "a", "alias": "x"}),
        (3, {"account": "a", "aliases": ["x"]}),
    ],
)
def test_every_version_ever_stored_is_read_as_the_newest(version: int, data: dict[str, Any]) -> None:
    assert CATALOG.load("Opened", version, data) == OPENED


def test_a_version_that_never_was_is_no_event() -> None:
    with pytest.raises(ValueError, match="no version 0 of Closed"):
        CATALOG.load("Closed", 0, {"account": "a"})


def test_data_of_another_shape_is_no_event() -> None:
    with pytest.raises(ValueError, match="Field required"):
        CATALOG.load("Closed", 1, {})


@pytest.mark.parametrize(("type_name", "version"), [("Frozen", 1), ("Opened", 4)])
def test_a_type_or_version_of_a_newer_program_is_kept_as_it_stands(type_name: str, version: int) -> None:
    event = CATALOG.load(type_name, version, {"by": "ada"})
    assert isinstance(event, UnknownEvent)
    assert event.stored() == (type_name, version, {"by": "ada"})


def test_an_event_is_stored_with_its_type_and_version() -> None:
    assert OPENED.stored() == ("Opened", 3, {"account": "a", "aliases": ["x"]})


@pytest.mark.parametrize(
    "event", [OPENED, Closed(account="ö ☃"), UnknownEvent(type="Frozen", version=2, data={"a": 1})]
)
@pytest.mark.parametrize("causation_id", [None, "another event"])
def test_an_envelope_gives_back_what_was_put_in(event: Event, causation_id: str | None) -> None:
    sent = recorded(event, causation_id=causation_id)
    assert from_cloudevent(sent.to_cloudevent(), CATALOG) == sent


@given(JSON_VALUES, st.text())
def test_whatever_an_event_holds_comes_through(value: object, stream: str) -> None:
    sent = recorded(UnknownEvent(type="Odd", version=1, data={"value": value}), stream=stream)
    assert from_cloudevent(sent.to_cloudevent(), CATALOG) == sent


def test_an_envelope_is_a_cloudevent() -> None:
    envelope = json.loads(recorded(causation_id="another").to_cloudevent())
    assert envelope == {
        "specversion": "1.0",
        "id": "an id",
        "source": "ledger",
        "type": "Opened",
        "subject": "account-a",
        "time": "2026-11-24T12:47:14.583001+00:00",
        "datacontenttype": "application/json",
        "data": {"account": "a", "aliases": ["x"]},
        "position": 7,
        "streamversion": 1,
        "schemaversion": 3,
        "actor": "ada",
        "correlationid": "c",
        "causationid": "another",
    }


def test_a_time_of_another_zone_is_the_same_instant() -> None:
    there = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert from_cloudevent(recorded(recorded_at=there).to_cloudevent(), CATALOG).recorded_at == AT


def test_an_event_of_another_service_is_none_of_ours() -> None:
    with pytest.raises(ValueError, match="another service"):
        from_cloudevent(recorded().to_cloudevent(), Catalog("identity", Opened))


def test_an_envelope_may_have_extensions_that_this_program_does_not_know() -> None:
    envelope = json.loads(recorded().to_cloudevent()) | {"traceparent": "00-1"}
    assert from_cloudevent(json.dumps(envelope).encode(), CATALOG) == recorded()


@given(st.binary())
def test_no_bytes_can_crash_the_reading_of_an_envelope(payload: bytes) -> None:
    with pytest.raises(ValueError):
        from_cloudevent(payload, CATALOG)


@given(st.sampled_from(sorted(json.loads(recorded().to_cloudevent()))), JSON_VALUES)
def test_no_value_in_an_envelope_can_crash_its_reading(name: str, value: object) -> None:
    envelope = json.loads(recorded().to_cloudevent()) | {name: value}
    try:
        read = from_cloudevent(json.dumps(envelope).encode(), CATALOG)
    except ValueError:
        return
    assert type(read.position) is int
    assert isinstance(read.stream, str)
    assert read.recorded_at.tzinfo is not None


def test_a_fault_of_an_envelope_does_not_show_what_is_in_it() -> None:
    envelope = json.loads(recorded().to_cloudevent()) | {"time": "a secret"}
    with pytest.raises(ValueError) as fault:
        from_cloudevent(json.dumps(envelope).encode(), CATALOG)
    assert "a secret" not in str(fault.value)
