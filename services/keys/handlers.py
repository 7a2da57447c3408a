"""Keys' commands: what is looked up, drawn and stamped before a decision. Routes, events and time call them alike."""

from collections.abc import Mapping
from typing import Any

from services.keys import read_model
from services.keys.domain import (
    KEY,
    AliasTaken,
    BlockKey,
    DeleteKey,
    ExpireKey,
    GenerateKey,
    KeyTaken,
    UnblockKey,
    UpdateKey,
    stream_of,
)
from services.keys.events import KeyTerms, KeyType
from services.keys.limits import Limits, expiry_of
from services.keys.read_model import KeyRow, Owner
from services.keys.settings import KeysSettings
from shared.errors import Refused
from shared.event_store import Transaction
from shared.secret import NewKey, draw_key, draw_key_id, token_of


class UserUnknown(Refused):
    reason = "not_found"


class CredentialGone(Refused):
    reason = "key_unknown"


async def generate_key(
    tx: Transaction,
    user_id: str,
    asked: KeyTerms,
    *,
    key_type: KeyType = "default",
    blocked: bool = False,
    chosen: str | None = None,
    maker_id: str | None = None,
    within_budget: bool = True,
) -> NewKey:
    """Make a key of ``user_id``'s; the key itself is in what is returned, and nowhere else.

    ``chosen`` is the key itself if somebody chose it; ``maker_id`` the key that this is asked for with, if it is;
    ``within_budget`` says whether ``max_budget`` is held to the user's own.
    """
    random = tx.draw("key")
    drawn = draw_key(random) if chosen is None else NewKey(chosen, draw_key_id(random), token_of(chosen), chosen[-4:])
    owner = await _get_owner(tx, user_id)
    await _generate(
        tx,
        GenerateKey(
            key_id=drawn.key_id,
            token=drawn.token,
            key_name=drawn.key_name,
            user_id=user_id,
            key_type=key_type,
            asked=asked,
            blocked=blocked,
            limits=await _limits(tx, owner, maker_id, within_budget=within_budget),
            by=tx.trace.actor,
            now=tx.now,
        ),
    )
    return drawn


async def generate_first_key(tx: Transaction, user_id: str, *, key_id: str, token: str, key_name: str) -> None:
    """Make the key that came with a new user: no limits but those that the upper bounds give (D24)."""
    limits = await _limits(tx, None, None, within_budget=False)
    command = GenerateKey(
        key_id, token, key_name, user_id, "default", KeyTerms(), False, limits, tx.trace.actor, tx.now
    )
    await _generate(tx, command)


async def _generate(tx: Transaction, command: GenerateKey) -> None:
    claims = {f"token:{command.token}": KeyTaken("key: there is such a key already", param="key")}
    alias = command.asked.key_alias
    await tx.execute(stream_of(command.key_id), KEY, command, claims=claims | _alias_claim(alias))


async def update_key(
    tx: Transaction,
    key: KeyRow,
    changes: Mapping[str, Any],
    *,
    user_id: str | None = None,
    blocked: bool | None = None,
    maker_id: str | None = None,
) -> None:
    """Change the fields of ``KeyTerms`` that are in ``changes``, and owner and block if so said; ``key`` is locked."""
    owner_id = user_id or key.user_id
    owner = await _get_owner(tx, owner_id) if owner_id and ("models" in changes or owner_id != key.user_id) else None
    limits = await _limits(tx, owner, maker_id, within_budget=False)
    before, after = key.terms.key_alias, changes.get("key_alias", key.terms.key_alias)
    await tx.execute(
        stream_of(key.key_id),
        KEY,
        UpdateKey(key.key_id, owner_id, changes, limits, tx.trace.actor, tx.now),
        claims=_alias_claim(after) if after != before else {},
        releases=[*_alias_claim(before)] if after != before else [],
    )
    if blocked is not None:
        await block_key(tx, key.key_id, blocked=blocked)


async def block_key(tx: Transaction, key_id: str, *, blocked: bool) -> None:
    """Block a key, or unblock it."""
    command = BlockKey if blocked else UnblockKey
    await tx.execute(stream_of(key_id), KEY, command(key_id, tx.trace.actor, tx.now))


async def delete_key(tx: Transaction, key: KeyRow) -> None:
    """Delete a key for good; ``key`` is locked. Its alias is free again, its hash is not."""
    command = DeleteKey(key.key_id, tx.trace.actor, tx.now)
    await tx.execute(stream_of(key.key_id), KEY, command, releases=[*_alias_claim(key.terms.key_alias)])


async def delete_keys_of(tx: Transaction, user_id: str) -> None:
    """Delete all keys of a user who is gone."""
    for key in await read_model.list_keys_of(tx, user_id):
        await delete_key(tx, key)


async def expire_key(tx: Transaction, key_id: str) -> None:
    """Note of a key that its time is over; workers refuse it by the clock."""
    await tx.execute(stream_of(key_id), KEY, ExpireKey(key_id, tx.now))


def wait_for_workers(tx: Transaction, key_id: str) -> None:
    """Answer only when no worker goes by an older state of the key, whatever is decided now (design §5)."""
    tx.barriers.add(stream_of(key_id))


async def require_user(tx: Transaction, user_id: str) -> None:
    """Raise ``UserUnknown`` for a user that never was; the keys of a deleted one can still be seen."""
    tx.rests_on.add("identity")
    if not await read_model.knows_user(tx, user_id):
        raise UserUnknown("user_id: there is no such user", param="user_id")


async def _get_owner(tx: Transaction, user_id: str) -> Owner:
    tx.rests_on.add("identity")
    owner = await read_model.find_owner(tx, user_id)
    if owner is None:
        raise UserUnknown("user_id: there is no such user", param="user_id")
    return owner


async def _limits(tx: Transaction, owner: Owner | None, maker_id: str | None, *, within_budget: bool) -> Limits:
    settings: KeysSettings = tx.settings
    bounds = settings.upperbound_key_generate_params.model_dump(exclude={"max_budget"})
    upper = KeyTerms(
        **bounds,
        max_budget_nano_usd=settings.upperbound_key_generate_params.max_budget,
        expires_at=expiry_of(bounds["duration"], tx.now),
    )
    return Limits(
        upper=upper,
        maker=await _get_maker(tx, maker_id),
        owner_models=owner.models if owner else (),
        owner_budget_nano_usd=owner.max_budget_nano_usd if owner and within_budget else None,
        known_models=frozenset(settings.model_names),
    )


async def _get_maker(tx: Transaction, maker_id: str | None) -> KeyTerms | None:
    if maker_id is None:
        return None
    maker = await read_model.find_key(tx, maker_id)
    if maker is None or maker.deleted_at is not None:
        raise CredentialGone("the key that was used was deleted meanwhile", param="key")
    return maker.terms


def _alias_claim(alias: str | None) -> dict[str, Refused]:
    """An alias is one key's at a time, of all that are not deleted (§5.7)."""
    if alias is None:
        return {}
    return {f"alias:{alias}": AliasTaken("key_alias: another key has it", param="key_alias")}
