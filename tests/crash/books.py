"""What must stand in the databases whatever failed: read by the owner, straight from the logs and tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from keystead.app import SERVICES
from services.notifications.domain import OUTCOME_UNKNOWN
from tests.crash.workload import Command
from tests.support.eventually import eventually
from tests.support.half_done import HALF_DONE

WITH_A_LOG = tuple(service for service in SERVICES if service.catalog.types)
# These end by time, and are waited for at the very end: a lost worker's holds are written off after a minute, a
# password that was never claimed is forgotten after a quarter of an hour.
BY_TIME = {"a hold that was never settled", "a password that waits for an invitation"}

# What no log may hold twice: the events, and what makes two of them the same.
ONCE = {
    "identity": [("UserCreated", "user_id"), ("UserDeleted", "user_id"), ("PasswordSet", "claim_id")],
    "invitations": [("InvitationCreated", "ref"), ("InvitationAccepted", "ref"), ("InvitationRevoked", "ref")],
    "keys": [("KeyGenerated", "key_id"), ("KeyDeleted", "key_id")],
    "budgets": [],
    "notifications": [
        ("NotificationQueued", "ref"),
        ("NotificationSent", "id"),
        ("NotificationFailed", "id"),
        ("NotificationWithdrawn", "id"),
    ],
}

# How often each command's effect stands there, by what the command is about.
EFFECTS = {
    "create": """
        select data ->> 'user_id' from identity.events where type = 'UserCreated'
        union all select data ->> 'user_id' from keys.events where type = 'KeyGenerated'
                   and data -> 'terms' ->> 'key_alias' is null""",
    "mail": "select data ->> 'user_id' from identity.events where type = 'UserCreated'",
    "invite": "select data ->> 'user_id' from invitations.events where type = 'InvitationCreated'",
    "claim": "select data ->> 'user_id' from identity.events where type = 'PasswordSet'",
    "generate": "select data ->> 'user_id' from keys.events where data -> 'terms' ->> 'key_alias' like 'key-of-%'"
    " and type = 'KeyGenerated'",
    "call": "select call_id from budgets.usage_rows",
    "delete": "select data ->> 'user_id' from identity.events where type = 'UserDeleted'",
}
TWICE = {"create"}  # the user and the key that comes with one

TORN = {
    "a claim that set no password, or a password without a claim": """
        select coalesce(p.data, a.data) ->> 'claim_id' from
               (select data from identity.events where type = 'PasswordSet') p full join
               (select data from invitations.events where type = 'InvitationAccepted') a
            on p.data ->> 'claim_id' = a.data ->> 'claim_id' where p.data is null or a.data is null""",
    "a key that outlived its user, or died before": """
        select k.data ->> 'key_id' from keys.events k
         where k.type = 'KeyGenerated'
           and exists (select from identity.events u where u.type = 'UserDeleted'
                        and u.data ->> 'user_id' = k.data ->> 'user_id')
            <> exists (select from keys.events d where d.type = 'KeyDeleted' and d.stream = k.stream)""",
    "an invitation by mail of which notifications did not hear": """
        select i.data ->> 'ref' from invitations.events i
         where i.type = 'InvitationCreated' and (i.data ->> 'send_email')::boolean
           and not exists (select from notifications.events n
                            where n.type = 'NotificationQueued' and n.data ->> 'ref' = i.data ->> 'ref')""",
    "a mail that is due and does not go": "select id from notifications.notifications_1 where status = 'queued'"
    " and handed_over_at is null",
    "a scope whose spend is not the sum of its calls": """
        select s.scope from budgets.scopes s
         where s.total_spent_nano_usd
            <> (select coalesce(sum(u.spend_nano_usd), 0) from budgets.usage_rows u where s.scope = any(u.scopes))""",
}


@dataclass
class Books:
    """The owner's view. What was found wrong is collected, so that one look tells all of it."""

    owner_url: str
    problems: list[str] = field(default_factory=list)

    async def settle(self, seconds: float) -> None:
        """Back when every relay and subscriber is at the end of every log, and nothing begun is unfinished."""
        found: list[str] = []

        async def settled() -> bool:
            found[:] = await self._unsettled()
            return not found

        try:
            await eventually(settled, seconds)
        except AssertionError:
            raise AssertionError(f"unsettled after {seconds} s: {found}") from None

    async def _unsettled(self) -> list[str]:
        questions = {what: query for what, query in {**HALF_DONE, **TORN}.items() if what not in BY_TIME}
        for service in WITH_A_LOG:
            questions[f"{service.name} has not told"] = (
                f"select published from {service.name}.relay"
                f" where published <> (select coalesce(max(position), 0) from {service.name}.events)"
            )
        for service in SERVICES:
            for source in (subscription.source for subscription in service.subscriptions):
                questions[f"{service.name} has not heard all of {source}"] = (
                    f"select position from {service.name}.subscriptions where source = '{source}'"
                    f" and position <> (select coalesce(max(position), 0) from {source}.events)"
                )
        return await self._found(questions)

    async def by_time(self, seconds: float) -> None:
        """Back when what only time ends has ended."""
        question = {"holds": HALF_DONE["a hold that was never settled"]}

        async def ended() -> bool:
            return not await self._found(question)

        await eventually(ended, seconds)

    async def check(self, commands: Sequence[Command], mails: Counter[str]) -> None:
        """An AssertionError that names all that is not as it must be."""
        for look in (self._logs_are_whole, self._nothing_twice):
            await look()
        await self._as_acknowledged(commands)
        await self._mailed_once(mails)
        assert not self.problems, self.problems

    async def _logs_are_whole(self) -> None:
        for name in (service.name for service in WITH_A_LOG):
            (row,) = await self._rows(f"select count(*), coalesce(max(position), 0) from {name}.events")
            if row[0] != row[1]:
                self.problems.append(f"{name}: {row[0]} events, and the last position is {row[1]}")
            back = await self._rows(
                "select position from (select position, recorded_at < lag(recorded_at) over (order by position) as back"
                f" from {name}.events) e where back"
            )
            self.problems += [f"{name}: time goes back at {position}" for (position,) in back]

    async def _nothing_twice(self) -> None:
        for service, events in ONCE.items():
            for type_name, key in events:
                twice = await self._rows(
                    f"select data ->> '{key}' from {service}.events where type = $1 and data ->> '{key}' is not null"
                    " group by 1 having count(*) > 1",
                    type_name,
                )
                self.problems += [f"{type_name} more than once for {about}" for (about,) in twice]

    async def _as_acknowledged(self, commands: Sequence[Command]) -> None:
        for kind, query in EFFECTS.items():
            counts = Counter(row[0] for row in await self._rows(query))
            whole = 2 if kind in TWICE else 1
            for command in (command for command in commands if command.kind == kind):
                allowed = {whole} if command.acknowledged else {0, whole}
                if counts[command.subject] not in allowed:
                    self.problems.append(f"{command}: its effect is there {counts[command.subject]} times")

    async def _mailed_once(self, mails: Counter[str]) -> None:
        """A mail goes out once or, should its sender have died in the act, perhaps not (ADR 10)."""
        rows = await self._rows(
            "select user_id, status, handed_over_at is not null or error = $1 from notifications.notifications_1",
            OUTCOME_UNKNOWN,
        )
        for user_id, status, in_the_act in rows:
            taken = mails[f"{user_id}@example.test"]
            if taken not in ({0, 1} if in_the_act else {1}):
                self.problems.append(f"the mail to {user_id} ({status}) was taken {taken} times")

    async def _found(self, questions: dict[str, str]) -> list[str]:
        return [
            f"{what}: {', '.join(str(row[0]) for row in rows[:5])}"
            for what, query in questions.items()
            if (rows := await self._rows(query))
        ]

    async def _rows(self, query: str, *args: object) -> list[tuple[object, ...]]:
        owner = await asyncpg.connect(self.owner_url)
        try:
            return [tuple(row.values()) for row in await owner.fetch(query, *args)]
        finally:
            await owner.close()
