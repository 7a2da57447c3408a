"""Events, and the envelope they travel and are stored in (CloudEvents 1.0)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class Event(BaseModel):
    """A fact, past tense. Frozen, and its shape is stored for ever: a change of shape is a new ``schema_version``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: ClassVar[int] = 1

    @classmethod
    def type_name(cls) -> str:
        return cls.__name__


class UnknownEvent(Event):
    """An event of a type this program does not know yet. Subscribers pass it over; its position counts."""

    type: str
    data: dict[str, Any]


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
        """The newest form of a stored event. Raises ``pydantic.ValidationError`` for data that does not fit."""
        known = self.types.get(type_name)
        if known is None or schema_version > known.schema_version:
            return UnknownEvent(type=type_name, data=data)
        for version in range(schema_version, known.schema_version):
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
        return json.dumps(
            {
                "specversion": "1.0",
                "id": self.id,
                "source": self.service,
                "type": self.event.type_name(),
                "subject": self.stream,
                "time": self.recorded_at.isoformat(),
                "datacontenttype": "application/json",
                "data": self.event.model_dump(mode="json"),
                "position": self.position,
                "streamversion": self.version,
                "schemaversion": self.event.schema_version,
                "actor": self.actor,
                "correlationid": self.correlation_id,
                "causationid": self.causation_id,
            },
            separators=(",", ":"),
        ).encode()


def from_cloudevent(payload: bytes, catalog: Catalog) -> Recorded:
    """The event in an envelope. Raises ``ValueError`` (pydantic's is one) for what is none of ``catalog``'s."""
    envelope = json.loads(payload)
    try:
        if envelope["source"] != catalog.service:
            raise ValueError(f"an event of {envelope['source']!r} where {catalog.service!r} was expected")
        return Recorded(
            id=envelope["id"],
            service=envelope["source"],
            stream=envelope["subject"],
            version=int(envelope["streamversion"]),
            position=int(envelope["position"]),
            recorded_at=datetime.fromisoformat(envelope["time"]),
            actor=envelope["actor"],
            correlation_id=envelope["correlationid"],
            causation_id=envelope["causationid"],
            event=catalog.load(envelope["type"], int(envelope["schemaversion"]), envelope["data"]),
        )
    except (KeyError, TypeError) as fault:
        raise ValueError(f"not an event's envelope: {fault!r}") from fault
