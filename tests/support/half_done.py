"""What a command or a call would leave behind that was cut in the middle: looked for in the logs of all services."""

import asyncpg

from tests.support.eventually import eventually

# What it is, and a query for it.
HALF_DONE = {
    "a user without the key that was promised with them": """
        select u.data -> 'first_key' ->> 'key_id' from identity.events u
         where u.type = 'UserCreated' and u.data -> 'first_key' is distinct from 'null'
           and not exists (select from keys.events k
                            where k.type = 'KeyGenerated' and k.data ->> 'key_id' = u.data -> 'first_key' ->> 'key_id')
           and not exists (select from identity.events d where d.type = 'UserDeleted' and d.stream = u.stream)""",
    "a key whose user is gone": """
        select k.data ->> 'key_id' from keys.events k
          join identity.events u on u.type = 'UserDeleted' and u.data ->> 'user_id' = k.data ->> 'user_id'
         where k.type = 'KeyGenerated'
           and not exists (select from keys.events d where d.type = 'KeyDeleted' and d.stream = k.stream)
           and not exists (select from identity.events n where n.stream = u.stream and n.version > u.version)""",
    "a session whose user is gone": """
        select s.data ->> 'session_id' from identity.events s
          join identity.events u on u.type = 'UserDeleted' and u.data ->> 'user_id' = s.data ->> 'user_id'
         where s.type = 'SessionStarted'
           and not exists (select from identity.events e where e.type = 'SessionEnded' and e.stream = s.stream)""",
    "an invitation whose user is gone": """
        select i.data ->> 'ref' from invitations.events i
          join identity.events u on u.type = 'UserDeleted' and u.data ->> 'user_id' = i.data ->> 'user_id'
         where i.type = 'InvitationCreated'
           and not exists (select from invitations.events e where e.stream = i.stream
                              and e.type in ('InvitationAccepted', 'InvitationRevoked', 'InvitationExpired'))""",
    "a password that waits for an invitation": "select claim_id from identity.pending_credentials",
    "a hold that was never settled": "select hold_id from budgets.holds where state = 'open'",
    **{
        f"an event of {service} that was not told": f"""
        select position::text from {service}.events where position > (select published from {service}.relay)"""
        for service in ("identity", "invitations", "keys", "budgets")
    },
}


async def nothing_is_half_done(owner_url: str, seconds: float = 10.0) -> None:
    """An AssertionError unless everything that was begun is finished within that time."""
    found: dict[str, list[str]] = {}
    log = await asyncpg.connect(owner_url)

    async def none() -> bool:
        found.clear()
        for what, query in HALF_DONE.items():
            if rows := await log.fetch(query):
                found[what] = [str(row[0]) for row in rows]
        return not found

    try:
        await eventually(none, seconds)
    except AssertionError:
        raise AssertionError(f"half done: {found}") from None
    finally:
        await log.close()
