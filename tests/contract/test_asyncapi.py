"""`docs/asyncapi.json`: AsyncAPI 3.0 of every event there is, and what is really sent is as it says."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema

from keystead.app import SERVICES
from keystead.asyncapi import document, told
from shared.events import Catalog, Event, Recorded
from tests.support.installation import installation

ROOT = Path(__file__).parents[2]
DOCUMENT = document()
CATALOGS: dict[str, Catalog] = {service.name: service.catalog for service in SERVICES}
GOLDEN = json.loads((ROOT / "tests/contract/golden/events.json").read_text(encoding="utf-8"))
EVENTS = [pytest.param(each.service, each.event, id=each.event.type_name()) for each in told()]


def resolved(reference: str) -> Any:
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(node: Any) -> Iterator[str]:
    match node:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for inner in node.values():
                yield from references(inner)
        case list():
            for inner in node:
                yield from references(inner)


def payload_of(name: str) -> Any:
    """A check of a message's payload, for which the document's references lead somewhere."""
    payload = DOCUMENT["components"]["messages"][name]["payload"]
    return jsonschema_rs.Draft7Validator({**payload, "components": DOCUMENT["components"]}, validate_formats=True)


def faults(name: str, envelope: dict[str, Any]) -> list[str]:
    return [fault.message for fault in payload_of(name).iter_errors(envelope)]


def test_it_is_asyncapi_3() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert DOCUMENT.keys() == {
        *("asyncapi", "id", "info", "defaultContentType", "servers", "channels", "operations", "components")
    }
    servers = {name: {**server, "pathname": ""} for name, server in DOCUMENT["servers"].items()}  # NATS has no paths
    ApplicationSchema.model_validate({**DOCUMENT, "servers": servers})


def test_every_reference_leads_somewhere_and_nothing_is_described_that_nobody_uses() -> None:
    found = set(references(DOCUMENT))
    assert all(resolved(reference) for reference in found)
    components = DOCUMENT["components"]
    described = {f"#/components/{kind}/{name}" for kind in ("messages", "schemas") for name in components[kind]}
    assert described <= found


def test_every_event_has_a_channel_an_operation_and_a_message() -> None:
    names = {event.type_name() for _, event, _ in told()}
    assert len(names) == len(told()) > 20, "and no two services tell events of one name"
    assert DOCUMENT["channels"].keys() == DOCUMENT["components"]["messages"].keys() == names
    assert {operation["channel"]["$ref"].split("/")[-1] for operation in DOCUMENT["operations"].values()} == names


def test_every_event_says_what_it_says() -> None:
    assert [event.type_name() for _, event, says in told() if not says] == []


@pytest.mark.parametrize(("service", "event"), EVENTS)
def test_a_channel_is_the_subject_of_its_event(service: str, event: type[Event]) -> None:
    channel = DOCUMENT["channels"][event.type_name()]
    assert channel["address"] == f"{service}.{event.type_name()}.{{stream}}"
    assert re.findall(r"{(\w+)}", channel["address"]) == [*channel["parameters"]]


@pytest.mark.parametrize(("service", "event"), EVENTS)
def test_the_golden_example_is_as_described(service: str, event: type[Event]) -> None:
    name = event.type_name()
    data = GOLDEN[service][name][str(event.schema_version)]
    loaded = CATALOGS[service].load(name, event.schema_version, data)
    now = datetime.fromisoformat("2026-11-24T12:47:14.583000Z")
    recorded = Recorded("id", service, "stream", 1, 1, now, "default_user_id", "call", None, loaded)
    envelope = json.loads(recorded.to_cloudevent())
    assert faults(name, envelope) == []
    wrongs: list[dict[str, Any]] = [
        {"position": 0},
        {"source": "nobody"},
        {"data": {}},
        {"schemaversion": 0},
        {"time": "x"},
    ]
    for wrong in wrongs:
        assert faults(name, {**envelope, **wrong}), wrong


async def test_what_an_installation_sends_is_as_described() -> None:
    heard: dict[str, dict[str, Any]] = {}
    async with installation() as it:
        ada = await it.invite()
        key = await it.ok("POST", "/key/generate", {}, key=ada.session)
        await it.ok("POST", "/key/delete", {"keys": [key["key_id"]]}, key=ada.session)
        for name in ("identity", "invitations", "keys"):
            wire = it.running(name).wire
            follower = await wire.jetstream.subscribe(f"{it.namespace}{name}.>", ordered_consumer=True)
            last = await it.running(name).run(lambda tx: tx.last_position(()))
            while len([each for each in heard.values() if each["source"] == name]) < last:
                message = await follower.next_msg(timeout=10)
                envelope = json.loads(message.data)
                heard[envelope["id"]] = envelope
                channel = DOCUMENT["channels"][envelope["type"]]
                prefix = it.namespace + channel["address"].removesuffix("{stream}")
                assert message.subject.startswith(prefix)
                assert (message.headers or {})["Nats-Msg-Id"] == envelope["id"]
            await follower.unsubscribe()
    assert {"UserCreated", "InvitationAccepted", "KeyGenerated", "KeyDeleted"} <= {e["type"] for e in heard.values()}
    for envelope in heard.values():
        assert faults(envelope["type"], envelope) == [], envelope
