"""AsyncAPI 3.0: every event that the services publish, as a subscriber hears it on NATS JetStream."""

from collections.abc import Iterator, Mapping
from inspect import cleandoc
from typing import Any, NamedTuple

from keystead.app import SERVICES
from keystead.version import version
from shared.events import Event

Document = dict[str, Any]

_REFERENCE = "#/components/schemas/{model}"
_TEXT, _POSITIVE = {"type": "string"}, {"type": "integer", "minimum": 1}
_DESCRIPTION = """
What happened, as each service tells it once it is committed.

Every service has a JetStream stream of its own (IDENTITY for identity) that holds the last seven days. An event may be
delivered more than once (its `id` is the `Nats-Msg-Id`), and JetStream may lose what it holds: a gap in `position`,
which counts a service's events without one, says so. Fields named `sealed_…` can be opened by identity only. Money is
in nano-USD. Events and versions of events are added: pass over what you do not know, and look at `schemaversion`; an
event that was told before an upgrade has the shape of its time.
"""
_ABOUT_STREAM = "What it is about: the envelope's `subject`, its odd characters as `=`, their code in hex, and `=`."


class Told(NamedTuple):
    """An event, the service that tells it, and what it says."""

    service: str
    event: type[Event]
    says: str


def told() -> list[Told]:
    """Every event of every service, in their own order."""
    return [
        Told(service.name, event, _first_paragraph(event.__doc__))
        for service in SERVICES
        for event in service.catalog.types.values()
    ]


def _first_paragraph(docstring: str | None) -> str:
    return cleandoc(docstring or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`")


def document() -> Document:
    """The description of them all."""
    events = told()
    schemas: Document = {}
    for each in events:
        schemas |= _schemas(each)
    return {
        "asyncapi": "3.0.0",
        "id": "urn:keystead:events",
        "info": {
            "title": "Keystead's events",
            "version": version(),
            "description": _DESCRIPTION.strip(),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"nats": _server()},
        "channels": {each.event.type_name(): _channel(each) for each in events},
        "operations": {f"tell{each.event.type_name()}": _operation(each) for each in events},
        "components": {
            "messages": {each.event.type_name(): _message(each) for each in events},
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"password": {"type": "userPassword", "description": "A NATS user's."}},
        },
    }


def _server() -> Document:
    return {
        "host": "{host}:{port}",
        "protocol": "nats",
        "description": "The installation's NATS. `subscriber` is the user for programs that only listen.",
        "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "4222"}},
        "security": [{"$ref": "#/components/securitySchemes/password"}],
    }


def _channel(each: Told) -> Document:
    name = each.event.type_name()
    return {
        "address": f"{each.service}.{name}.{{stream}}",
        "description": f"JetStream stream {each.service.upper()}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "parameters": {"stream": {"description": _ABOUT_STREAM}},
    }


def _operation(each: Told) -> Document:
    name = each.event.type_name()
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": each.says,
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
    }


def _message(each: Told) -> Document:
    name = each.event.type_name()
    return {
        "name": name,
        "title": name,
        "summary": each.says,
        "contentType": "application/json",
        "headers": {"type": "object", "required": ["Nats-Msg-Id"], "properties": {"Nats-Msg-Id": _TEXT}},
        "payload": _envelope(each),
    }


def _envelope(each: Told) -> Document:
    """CloudEvents 1.0, in its structured form."""
    properties: Document = {
        "specversion": {"const": "1.0"},
        "id": _TEXT,
        "source": {"const": each.service},
        "type": {"const": each.event.type_name()},
        "subject": {**_TEXT, "description": "The stream: what it is about."},
        "time": {**_TEXT, "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "data": {"$ref": _REFERENCE.format(model=each.event.type_name())},
        "position": {**_POSITIVE, "description": "Its place in the service's log, which has no gap."},
        "streamversion": {**_POSITIVE, "description": "Its place in the stream."},
        "schemaversion": {"const": each.event.schema_version},
        "actor": {**_TEXT, "description": "Who did it: a user's id, `key:` and a key's, or `system`."},
        "correlationid": {**_TEXT, "description": "The call that all of this came from."},
        "causationid": {"type": ["string", "null"], "description": "The event that caused it."},
    }
    return {"type": "object", "required": [*properties], "properties": properties}


def _schemas(each: Told) -> Document:
    """Its data's, and those of what is in it, each by its name."""
    schema = each.event.model_json_schema(mode="serialization", ref_template=_REFERENCE)
    inner: Mapping[str, Any] = schema.pop("$defs", {})
    return {name: dict(_plain(part)) for name, part in {**inner, each.event.type_name(): schema}.items()}


def _plain(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Without the titles that are only names over again."""
    for name, value in schema.items():
        if name == "properties":
            yield name, {field: {k: v for k, v in inner.items() if k != "title"} for field, inner in value.items()}
        elif name != "title":
            yield name, value
