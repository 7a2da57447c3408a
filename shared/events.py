"""Events, and the envelope they travel and are stored in (CloudEvents 1.0)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, PositiveInt

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class Stored(NamedTuple):
    """An event as it is stored and sent."""

    type: str
    schema_version: int
    data: dict[str, Any]


class Event(BaseModel):
    """A fact, past tense. Frozen, and its shape is stored for ever: a change of shape is a new ``schema_version``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: ClassVar[int] = 1

    @classmethod
    def type_name(cls) -> str:
        return cls.__name__

    def stored(self) -> Stored:
        return Stored(self.type_name(), self.schema_version, self.model_dump(mode="json"))


class UnknownEvent(Event):
    """An event of a type or version that this program does not know yet, as it was stored.

    Subscribers pass it over; its position counts.
    """

    type: str
    version: int
    data: dict[str, Any]

    def stored(self) -> Stored:
        return Stored(self.type, self.version, self.data)


class Catalog:
    """The events that one service publishes, every version of them.

    ``upcasters`` maps ``(type, version)`` to a function that turns data of that version into the next version's.
    """

    def __init__(
        self, service: str, *types: type[Event], upcasters: Mapping[tuple[str, int], Upcaster] | None = None
    ) -> None:
        self.service = service
        self.types = {t.type_name(): t for t in types}
        self._upcasters = dict(upcasters or {})

    def load(self, type_name: str, schema_version: int, data: dict[str, Any]) -> Event:
        """The newest form of a stored event. Raises ``ValueError`` (pydantic's is one) for data that does not fit."""
        known = self.types.get(type_name)
        if known is None or schema_version > known.schema_version:
            return UnknownEvent(type=type_name, version=schema_version, data=data)
        for version in range(schema_version, known.schema_version):
            if (type_name, version) not in self._upcasters:
                raise ValueError(f"there was no version {version} of {type_name}")
            data = self._upcasters[type_name, version](data)
        return known.model_validate(data)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event in its service's log: what happened, where it stands, and who and what caused it."""

    id: str
    service: str
    stream: str
    version: int
    position: int
    recorded_at: datetime
    actor: str
    correlation_id: str
    causation_id: str | None
    event: Event

    def to_cloudevent(self) -> bytes:
        """The envelope, as JSON."""
        stored = self.event.stored()
        return json.dumps(
            {
                "specversion": "1.0",
                "id": self.id,
                "source": self.service,
                "type": stored.type,
                "subject": self.stream,
                "time": self.recorded_at.isoformat(),
                "datacontenttype": "application/json",
                "data": stored.data,
                "position": self.position,
                "streamversion": self.version,
                "schemaversion": stored.schema_version,
                "actor": self.actor,
                "correlationid": self.correlation_id,
                "causationid": self.causation_id,
            },
            separators=(",", ":"),
        ).encode()


class _Envelope(BaseModel):
    """What an envelope must be; anything may come over the wire."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    id: str
    source: str
    type: str
    subject: str
    time: AwareDatetime
    data: dict[str, Any]
    position: PositiveInt
    streamversion: PositiveInt
    schemaversion: PositiveInt
    actor: str
    correlationid: str
    causationid: str | None


def from_cloudevent(payload: bytes, catalog: Catalog) -> Recorded:
    """The event in an envelope. Raises ``ValueError`` (pydantic's is one) for what is none of ``catalog``'s."""
    envelope = _Envelope.model_validate_json(payload)
    if envelope.source != catalog.service:
        raise ValueError(f"an event of another service than {catalog.service}")
    return Recorded(
        id=envelope.id,
        service=envelope.source,
        stream=envelope.subject,
        version=envelope.streamversion,
        position=envelope.position,
        recorded_at=envelope.time,
        actor=envelope.actor,
        correlation_id=envelope.correlationid,
        causation_id=envelope.causationid,
        event=catalog.load(envelope.type, envelope.schemaversion, envelope.data),
    )
