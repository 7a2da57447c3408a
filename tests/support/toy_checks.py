"""What must be true of the toys' logs, read models, claims and streams, told by the owner's look at one moment."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import nats
import nats.js.errors

from shared.service import Running
from tests.support.histories import Entry, Log, check_log, check_reactions, log_of
from tests.support.toy_steps import HEARS
from tests.support.toys import Place, eventually, published

ACKNOWLEDGED_SECONDS = 2.0
Rows = dict[str, tuple[int, int]]


@dataclass
class Seen:
    """Everything at one moment."""

    logs: dict[str, Log]
    positions: dict[tuple[str, str], int]
    tables: dict[str, Rows]
    claims: dict[str, str]


async def look(place: Place, answers: Mapping[str, str], *, converged: bool = False) -> str:
    """An AssertionError unless all is as the logs say; ``converged`` if everyone has heard everything."""
    async with place.owner() as owner, owner.transaction(isolation="repeatable_read", readonly=True):
        seen = await _see(owner)
    for service, log in seen.logs.items():
        check_log(service, log)
    if converged:
        for (reader, source), position in seen.positions.items():
            assert position == len(seen.logs[source]), f"{reader} has not heard all of {source}"
    _check_tables(seen)
    _check_claims(seen)
    _check_reactions(seen)
    _check_answers(seen, answers)
    return " ".join(f"{service}: {len(log)}" for service, log in seen.logs.items())


async def _see(owner: "asyncpg.Connection[asyncpg.Record]") -> Seen:
    logs = {service: await log_of(owner, service) for service in ("ledger", *HEARS)}
    positions = {
        (reader, source): await owner.fetchval(f"select position from {reader}.subscriptions where source = $1", source)
        for reader, sources in HEARS.items()
        for source in sources
    }
    names = ("ledger.accounts_1", "reader.seen_1", "clerk.known_1", "clerk.heard_1", "clerk.tallies_1")
    tables = {name: {row[0]: (row[1], row[2]) for row in await owner.fetch(f"select * from {name}")} for name in names}
    claims = {row[0]: row[1] for row in await owner.fetch("select claim, stream from ledger.claims")}
    return Seen(logs, positions, tables, claims)


def fold_accounts(log: Iterable[Entry]) -> Rows:
    """What the ledger's events come to: each open account's balance, and of how many events."""
    rows: Rows = {}
    for entry in log:
        account = entry.data["account"]
        match entry.type:
            case "Opened":
                rows[account] = (0, 1)
            case "Deposited":
                balance, applied = rows[account]
                rows[account] = (balance + entry.data["amount"], applied + 1)
            case "Closed":
                del rows[account]
    return rows


def fold_sums(log: Iterable[Entry]) -> Rows:
    """What notes and counts come to."""
    rows: Rows = {}
    for entry in log:
        account = entry.data["account"]
        if entry.type == "Filed":
            del rows[account]
        else:
            amount, applied = rows.get(account, (0, 0))
            rows[account] = (amount + entry.data["amount"], applied + 1)
    return rows


def fold_claims(log: Iterable[Entry]) -> dict[str, str]:
    """Whose each name is. No name is taken that somebody has."""
    claims: dict[str, str] = {}
    for entry in log:
        if entry.type == "Opened" and entry.data["name"]:
            name = f"name:{entry.data['name']}"
            assert name not in claims, f"{name} was taken twice"
            claims[name] = entry.stream
        elif entry.type == "Closed":
            claims = {name: stream for name, stream in claims.items() if stream != entry.stream}
    return claims


def _heard(seen: Seen, reader: str, source: str) -> Log:
    return seen.logs[source][: seen.positions[reader, source]]


def _check_tables(seen: Seen) -> None:
    expected = {
        "ledger.accounts_1": fold_accounts(seen.logs["ledger"]),
        "reader.seen_1": fold_accounts(_heard(seen, "reader", "ledger")),
        "clerk.known_1": fold_accounts(_heard(seen, "clerk", "ledger")),
        "clerk.heard_1": fold_sums(_heard(seen, "clerk", "reader")),
        "clerk.tallies_1": fold_sums(seen.logs["clerk"]),
    }
    for name, rows in expected.items():
        assert seen.tables[name] == rows, f"{name} is not the fold of the log"


def _check_claims(seen: Seen) -> None:
    assert seen.claims == fold_claims(seen.logs["ledger"])


def _check_reactions(seen: Seen) -> None:
    deposits = _heard(seen, "reader", "ledger")
    check_reactions(deposits, seen.logs["reader"], lambda entry: entry.type == "Deposited", "notes")
    counts = [entry for entry in seen.logs["clerk"] if entry.type == "Counted"]
    check_reactions(_heard(seen, "clerk", "reader"), counts, lambda _: True, "counts")


def _check_answers(seen: Seen, answers: Mapping[str, str]) -> None:
    """Done is done once, refused is not done, and of nothing else is there a trace."""
    commands = {"ledger": "ledger", "reader": "reader", "clerk": "clerk"}
    for service in commands:
        done = Counter(entry.correlation_id for entry in seen.logs[service] if entry.causation_id is None)
        for number, answer in answers.items():
            if answer == f"done by {service}" and number not in done:
                assert service == "ledger", f"command {number} was acknowledged and left nothing"
            assert done[number] <= 1, f"command {number} was done {done[number]} times"
            assert not (answer.startswith("refused") and done[number]), f"command {number} was refused, and done"


async def check_stream(place: Place, running: Running[Any], lost_messages: bool) -> None:
    """The stream says what the log says, in its order."""
    service = running.service.name
    async with place.owner() as owner:
        log = await log_of(owner, service)
    told = [message for message in await published(running) if "Nats-Msg-Id" in message.headers]
    for message in told:
        entry = log[message.position - 1]
        assert (message.headers["Nats-Msg-Id"], message.envelope["id"]) == (entry.id, entry.id)
        assert (message.envelope["type"], message.envelope["data"]) == (entry.type, entry.data)
    if not lost_messages:
        assert [message.position for message in told] == list(range(1, len(log) + 1)), f"{service}'s stream"


async def all_told(place: Place, service: str) -> None:
    """Back when the relay has told everything, and everyone was given it."""
    await eventually(lambda: _is_told(place, service))
    for reader in (reader for reader, sources in HEARS.items() if service in sources):
        await eventually(lambda r=reader: all_given(place, service, r))  # type: ignore[misc]
        with suppress(AssertionError):  # a gone replica has the rest in hand for half a minute
            await eventually(lambda r=reader: all_given(place, service, r, acknowledged=True), ACKNOWLEDGED_SECONDS)  # type: ignore[misc]


async def _is_told(place: Place, service: str) -> bool:
    last = f"select coalesce(max(position), 0) from {service}.events"
    return bool(await place.value(f"select (select published from {service}.relay) = ({last})"))


async def all_given(place: Place, service: str, reader: str, *, acknowledged: bool = False) -> bool:
    """Whether the reader was given all that is in the service's stream."""
    client = await nats.connect(place.nats_url)
    try:
        stream = f"{place.namespace}{service}".replace(".", "_").upper()
        durable = f"{place.namespace}{reader}-{service}".replace(".", "_")
        info = await client.jetstream().consumer_info(stream, durable)
    except nats.js.errors.NotFoundError:
        return False  # it is not there again yet
    finally:
        await client.close()
    return not info.num_pending and not (acknowledged and info.num_ack_pending)
