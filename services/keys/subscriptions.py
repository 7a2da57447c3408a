"""What keys hears: users that come and go, and spend. And what others ask it."""

from typing import Any

from services.budgets.events import CATALOG as BUDGETS
from services.identity.events import CATALOG as IDENTITY
from services.identity.events import UserCreated, UserDeleted
from services.keys import handlers, read_model
from services.keys.key_object import key_object
from services.keys.read_model import KeyFilter
from services.keys.requests import CountedKeys, CountUserKeys, FindKey, FoundKey, ListedKeys, ListUserKeys
from shared.answers import to_wire
from shared.event_store import Transaction
from shared.events import Recorded
from shared.service import Running
from shared.subscriptions import Subscription


async def on_user_created(tx: Transaction, recorded: Recorded) -> None:
    """A user may come with a key, which whoever answers the client has drawn."""
    created = recorded.event
    assert isinstance(created, UserCreated)
    if created.first_key is not None:
        key = created.first_key
        await handlers.generate_first_key(
            tx, created.user_id, key_id=key.key_id, token=key.token, key_name=key.key_name
        )


async def on_user_deleted(tx: Transaction, recorded: Recorded) -> None:
    """The keys go with their user (§5.8), those too that were made before we heard of it."""
    deleted = recorded.event
    assert isinstance(deleted, UserDeleted)
    await handlers.delete_keys_of(tx, deleted.user_id)


SUBSCRIPTIONS = (
    Subscription(IDENTITY, {UserCreated: on_user_created, UserDeleted: on_user_deleted}),
    Subscription(BUDGETS),
)


async def find_key(running: Running[Any], question: FindKey) -> FoundKey:
    async def look(tx: Transaction) -> FoundKey:
        position = await tx.last_position()  # before the key: it may be newer than its position says, never older
        key = await read_model.find_key(tx, question.token)
        if key is None or key.token != question.token or key.deleted_at is not None:
            return FoundKey(position=position, exists=False)
        terms = key.terms.model_dump(include=set(FoundKey.model_fields))
        return FoundKey(
            position=position,
            exists=True,
            key_id=key.key_id,
            token=key.token,
            user_id=key.user_id,
            key_type=key.key_type,
            blocked=key.blocked,
            **terms,
        )

    return await running.run(look)


async def list_user_keys(running: Running[Any], question: ListUserKeys) -> ListedKeys:
    async def look(tx: Transaction) -> ListedKeys:
        wanted = KeyFilter(user_id=question.user_id)
        rows, total = await read_model.list_keys(
            tx, wanted, sort_by="created_at", descending=True, limit=question.limit
        )
        keys = [to_wire(key_object(row, tx.now, running.settings.timezone)) for row in rows]
        return ListedKeys(keys=keys, total=total)

    return await running.run(look)


async def count_user_keys(running: Running[Any], question: CountUserKeys) -> CountedKeys:
    return CountedKeys(counts=await running.run(read_model.count_keys, question.user_ids))
