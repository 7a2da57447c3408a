"""The routes of §3.6: keys generated, read, listed, changed, blocked and deleted."""

import re
from collections.abc import Sequence, Set
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from services.keys import handlers, read_model
from services.keys.domain import KeyUnknown
from services.keys.events import KeyTerms, KeyType
from services.keys.key_object import Key, KeyInfo, key_fields, key_object
from services.keys.read_model import KeyFilter, KeyRow, SortBy, Status
from services.keys.settings import KeysSettings
from shared.answers import Answer, JsonAnswer
from shared.body import StrictRoute
from shared.durations import DurationText, LifeText
from shared.errors import Refused
from shared.event_store import Transaction
from shared.idempotency import Idempotent
from shared.money import Money
from shared.permissions import KeyTypeNotAllowed, NotYours, Operation, RoleNotAllowed
from shared.principal import Principal, may, running
from shared.secret import KEY_PREFIX, SESSION_PREFIX, token_of
from shared.service import Running
from shared.values import Body, Id, Metadata, Name, StringList
from shared.values import Query as QueryModel

router = APIRouter(route_class=StrictRoute, tags=["keys"])

Keys = Annotated[Running[KeysSettings], Depends(running("keys"))]
NAMED_MAX = 100
# Notes 6 and 7 of §2.2: what users may not set, and not change, so that limits which an admin set can't be loosened.
ADMINS_TO_SET = frozenset({"key", "blocked", "budget_enforcement"})
ADMINS_TO_CHANGE = frozenset({"max_budget", "budget_duration", "user_id", "team_id", "blocked", "budget_enforcement"})
CHOSEN_KEY = re.compile(r"sk-[A-Za-z0-9_-]{17,252}")


class TeamUnknown(Refused):
    reason = "not_found"


class FieldMissing(Refused):
    reason = "field_missing"


class OutOfRange(Refused):
    reason = "out_of_range"


class FieldReadOnly(Refused):
    reason = "field_read_only"


def _strict_only(value: object) -> object:
    if value == "soft":
        raise PydanticCustomError("field_unsupported", "is not supported yet where it is soft")
    return value


def _chosen(key: str) -> str:
    if not CHOSEN_KEY.fullmatch(key):
        raise PydanticCustomError("out_of_range", "is not sk- and 17 or more of A-Z, a-z, 0-9, _ and -")
    if key.startswith((KEY_PREFIX, SESSION_PREFIX)):
        raise PydanticCustomError("out_of_range", "begins like those that are drawn here")
    return key


class KeyFields(Body):
    """What can be said of a key when it is made and later. What waits for later versions is refused until then."""

    later: ClassVar[frozenset[str]] = frozenset(
        {
            "budget_id",
            "budget_limits",
            "max_parallel_requests",
            "rpm_limit",
            "send_invite_email",
            "soft_budget",
            "tpm_limit",
        }
    )

    key_alias: Name | None = None
    duration: LifeText | None = None
    models: StringList | None = None
    max_budget: Money | None = None
    budget_duration: DurationText | None = None
    budget_enforcement: Annotated[Literal["strict"] | None, BeforeValidator(_strict_only)] = None
    metadata: Metadata | None = None
    tags: StringList | None = None
    user_id: Id | None = None
    team_id: Id | None = None
    blocked: bool | None = None


class GenerateKeyBody(KeyFields):
    key_type: KeyType | None = None
    key: Annotated[str, AfterValidator(_chosen)] | None = None
    spend: Money | None = None


class UpdateKeyBody(KeyFields):
    key: Name | None = None
    spend: Any = None


class DeleteKeysBody(Body):
    keys: list[Name] | None = None
    key_aliases: list[Name] | None = None


class BlockKeyBody(Body):
    key: Name


class KeyInfoQuery(QueryModel):
    key: Name | None = None


class KeyListQuery(QueryModel):
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    size: Annotated[int, Field(ge=1, le=100)] = 10
    user_id: Id | None = None
    team_id: Id | None = None
    key_hash: Name | None = None
    key_alias: Name | None = None
    search: Name | None = None
    return_full_object: bool = False
    include_team_keys: bool = False
    include_created_by_keys: bool = False
    sort_by: SortBy = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"
    status: Status | None = None
    expires: Literal["active", "expired"] | None = None
    substring_matching: bool = False


class GeneratedKey(Key):
    """The one answer with the key itself in it."""

    key: str
    token_id: str
    duration: str | None


class UpdatedKey(Key):
    key: str


class FoundKeyInfo(Answer):
    key: str
    info: KeyInfo


class KeyList(Answer):
    keys: Sequence[str] | Sequence[Key]
    total_count: int
    current_page: int
    total_pages: int


class DeletedKeys(Answer):
    deleted_keys: Sequence[str]


@router.post("/key/generate", response_model=GeneratedKey, openapi_extra=Idempotent("keys"))
async def generate_key(
    keys: Keys, principal: Annotated[Principal, may(Operation.KEY_GENERATE)], body: GenerateKeyBody
) -> Response:
    """Make a key, which is shown in this answer and in no other."""
    if body.spend:
        raise FieldReadOnly("spend is a record, and can't be set", param="spend")
    owner_id = body.user_id or principal.user_id
    principal.require(Operation.KEY_GENERATE, owner_id=owner_id)
    assert owner_id is not None, "only a user's credential may generate"
    _refuse_team(principal, body.team_id)
    is_admin = principal.reaches_all(Operation.KEY_GENERATE)
    if not is_admin:
        _refuse_admins_fields({name for name in ADMINS_TO_SET if getattr(body, name)})

    async def generate(tx: Transaction) -> GeneratedKey:
        drawn = await handlers.generate_key(
            tx,
            owner_id,
            KeyTerms(**_terms(body)),
            key_type=body.key_type or "default",
            blocked=bool(body.blocked),
            chosen=body.key,
            maker_id=principal.key_id,
            within_budget=not is_admin,
        )
        row = await read_model.get_key(tx, drawn.key_id)
        fields = key_fields(row, tx.now, keys.settings.timezone)
        return GeneratedKey(**fields, token=row.token, key=drawn.key, token_id=row.token, duration=row.terms.duration)

    return JsonAnswer(await keys.run(generate))


@router.get("/key/info", response_model=FoundKeyInfo)
async def key_info(
    keys: Keys, principal: Annotated[Principal, may(Operation.KEY_INFO)], query: Annotated[KeyInfoQuery, Query()]
) -> Response:
    """One key; the calling one, if none is named."""
    name = query.key or principal.key_id
    if name is None:
        raise FieldMissing("key is required where the credential is no key", param="key")

    async def look(tx: Transaction) -> FoundKeyInfo:
        if principal.key_type == "llm_api":
            await _require_itself(tx, principal, name)
        key = await _find(tx, principal, Operation.KEY_INFO, name)
        return FoundKeyInfo(key=key.token, info=KeyInfo(**key_fields(key, tx.now, keys.settings.timezone)))

    return JsonAnswer(await keys.run(look))


@router.get("/key/list", response_model=KeyList)
async def list_keys(
    keys: Keys, principal: Annotated[Principal, may(Operation.KEY_LIST)], query: Annotated[KeyListQuery, Query()]
) -> Response:
    """A page of the keys that the caller sees, their hashes or the whole of them."""
    _refuse_team(principal, query.team_id)

    async def look(tx: Transaction) -> KeyList:
        wanted = await _filter(tx, principal, query)
        rows, total = await read_model.list_keys(
            tx,
            wanted,
            sort_by=query.sort_by,
            descending=query.sort_order == "desc",
            limit=query.size,
            offset=(query.page - 1) * query.size,
        )
        whole = [key_object(row, tx.now, keys.settings.timezone) for row in rows]
        return KeyList(
            keys=whole if query.return_full_object else [key.token for key in whole],
            total_count=total,
            current_page=query.page,
            total_pages=-(-total // query.size),
        )

    return JsonAnswer(await keys.run(look))


@router.post("/key/update", response_model=UpdatedKey)
async def update_key(
    keys: Keys, principal: Annotated[Principal, may(Operation.KEY_UPDATE)], body: UpdateKeyBody
) -> Response:
    """Change a key: what is absent stays, what is null is cleared. An alias alone finds it."""
    if "spend" in body.model_fields_set:
        raise FieldReadOnly("spend is a record, and can't be set", param="spend")
    if body.key is None and body.key_alias is None:
        raise FieldMissing("key is required, or key_alias to find it", param="key")
    sent = body.model_fields_set - ({"key"} if body.key is not None else {"key", "key_alias"})

    async def update(tx: Transaction) -> UpdatedKey:
        key = await _find_to_change(tx, principal, Operation.KEY_UPDATE, body.key, alias=body.key_alias)
        _check_update(principal, key, body, sent)
        await handlers.update_key(
            tx,
            key,
            _changes(body, sent),
            user_id=body.user_id,
            blocked=bool(body.blocked) if "blocked" in sent else None,
            maker_id=principal.key_id,
        )
        row = await read_model.get_key(tx, key.key_id)
        return UpdatedKey(**key_fields(row, tx.now, keys.settings.timezone), token=row.token, key=row.token)

    return JsonAnswer(await keys.run(update))


@router.post("/key/delete", response_model=DeletedKeys)
async def delete_keys(
    keys: Keys, principal: Annotated[Principal, may(Operation.KEY_DELETE)], body: DeleteKeysBody
) -> Response:
    """Delete keys for good: all that are named, or none (D36)."""
    names, aliases = body.keys or [], body.key_aliases or []
    if body.keys is None and body.key_aliases is None:
        raise FieldMissing("keys is required, or key_aliases", param="keys")
    if not 1 <= len(names) + len(aliases) <= NAMED_MAX:
        more = "key_aliases" if body.keys is None or len(aliases) > len(names) else "keys"
        raise OutOfRange(f"keys and key_aliases are not 1 to {NAMED_MAX}", param=more)

    async def delete(tx: Transaction) -> DeletedKeys:
        operation = Operation.KEY_DELETE
        found: dict[str, KeyRow] = {}
        for name in sorted({*names}):  # in one order for all, or who deletes the same keys would lock each other out
            found[name] = await _find_to_change(tx, principal, operation, name, param="keys")
        by_alias = [
            await _find_to_change(tx, principal, operation, None, alias=alias, param="key_aliases")
            for alias in sorted({*aliases})
        ]
        for key in {key.key_id: key for key in [*found.values(), *by_alias]}.values():
            await handlers.delete_key(tx, key)
        return DeletedKeys(deleted_keys=[*(found[name].token for name in names), *aliases])

    return JsonAnswer(await keys.run(delete))


@router.post("/key/block", response_model=Key)
async def block_key(
    keys: Keys, principal: Annotated[Principal, may(Operation.KEY_BLOCK)], body: BlockKeyBody
) -> Response:
    """Block a key until it is unblocked."""
    return await _set_blocked(keys, principal, body, blocked=True)


@router.post("/key/unblock", response_model=Key)
async def unblock_key(
    keys: Keys, principal: Annotated[Principal, may(Operation.KEY_BLOCK)], body: BlockKeyBody
) -> Response:
    """Let a blocked key work again."""
    return await _set_blocked(keys, principal, body, blocked=False)


async def _set_blocked(
    keys: Running[KeysSettings], principal: Principal, body: BlockKeyBody, *, blocked: bool
) -> Response:
    async def change(tx: Transaction) -> Key:
        key = await _find_to_change(tx, principal, Operation.KEY_BLOCK, body.key)
        await handlers.block_key(tx, key.key_id, blocked=blocked)
        return key_object(await read_model.get_key(tx, key.key_id), tx.now, keys.settings.timezone)

    return JsonAnswer(await keys.run(change))


async def _find(
    tx: Transaction,
    principal: Principal,
    operation: Operation,
    name: str | None,
    *,
    alias: str | None = None,
    param: str = "key",
    locked: bool = False,
) -> KeyRow:
    """The key of that name (its hash, its key_id or itself) or alias, if the caller may; else 404 or 403 (§1.4)."""
    if name is not None:
        key = await read_model.find_key(tx, _known_as(name), locked=locked)
    else:
        key = await read_model.find_key_by_alias(tx, alias or "", locked=locked)
    # A foreign key and none at all are one and the same to who may see only some.
    principal.require(operation, owner_id=key.user_id if key is not None else None)
    if key is None:
        raise KeyUnknown(f"{param}: there is no such key", param=param)
    return key


async def _require_itself(tx: Transaction, principal: Principal, name: str) -> None:
    """Before anything is said of another key: whether there is one is nothing that such a key may ask."""
    key = await read_model.find_key(tx, _known_as(name))
    if key is None or key.key_id != principal.key_id:
        raise KeyTypeNotAllowed("a key of type llm_api reads itself only")


def _known_as(name: str) -> str:
    return token_of(name) if name.startswith("sk-") else name


async def _find_to_change(
    tx: Transaction,
    principal: Principal,
    operation: Operation,
    name: str | None,
    *,
    alias: str | None = None,
    param: str = "key",
) -> KeyRow:
    """The same, locked. The answer, a 404 too, waits for the workers: a change before may not have reached them all."""
    key = await _find(tx, principal, operation, name, alias=alias, param=param, locked=True)
    handlers.wait_for_workers(tx, key.key_id)
    if key.deleted_at is not None:
        raise KeyUnknown(f"{param}: there is no such key", param=param)
    return key


async def _filter(tx: Transaction, principal: Principal, query: KeyListQuery) -> KeyFilter:
    """A filter by the id of what the caller may not see is refused, never an empty list (§5.10)."""
    sees_all = principal.reaches_all(Operation.KEY_LIST)
    if query.user_id is not None:
        principal.require(Operation.KEY_LIST, owner_id=query.user_id)
    if query.user_id is not None and sees_all:
        await handlers.require_user(tx, query.user_id)
    key = None
    if query.key_hash is not None:
        key = await _find(tx, principal, Operation.KEY_LIST, query.key_hash, param="key_hash")
    return KeyFilter(
        seen_by=None if sees_all else principal.user_id,
        user_id=query.user_id,
        or_created=query.include_created_by_keys,
        key_id=key.key_id if key else None,
        alias=query.key_alias if not query.substring_matching else None,
        alias_part=query.key_alias if query.substring_matching else None,
        search=query.search,
        status=query.status,
        expired=None if query.expires is None else query.expires == "expired",
    )


def _refuse_team(principal: Principal, team_id: str | None) -> None:
    """There are no teams yet: each is an unknown one."""
    if team_id is None:
        return
    if principal.reaches_all(Operation.KEY_INFO):
        raise TeamUnknown("team_id: there is no such team", param="team_id")
    raise NotYours("team_id: it is not yours, or does not exist", param="team_id")


def _check_update(principal: Principal, key: KeyRow, body: UpdateKeyBody, sent: Set[str]) -> None:
    if not principal.reaches_all(Operation.KEY_UPDATE):
        if key.created_by != principal.actor:
            raise NotYours("key: only who generated it may change it", param="key")
        _refuse_admins_fields(sent & ADMINS_TO_CHANGE)
    _refuse_team(principal, body.team_id)
    if "user_id" in sent and body.user_id is None:
        raise OutOfRange("user_id is null, and a key without a team needs a user", param="user_id")


def _refuse_admins_fields(sent: Set[str]) -> None:
    if sent:
        name = min(sent)
        raise RoleNotAllowed(f"{name}: only an admin may set it", param=name)


def _terms(body: KeyFields) -> dict[str, Any]:
    """The body's fields of ``KeyTerms``; what is null in a list or an object is empty."""
    return {
        "key_alias": body.key_alias,
        "models": tuple(body.models or ()),
        "max_budget_nano_usd": body.max_budget,
        "budget_duration": body.budget_duration,
        "metadata": body.metadata or {},
        "tags": tuple(body.tags or ()),
        "duration": body.duration,
    }


def _changes(body: KeyFields, sent: Set[str]) -> dict[str, Any]:
    """Those of them that were sent; only money has another name there."""
    wire_names = {"max_budget_nano_usd": "max_budget"}
    return {name: value for name, value in _terms(body).items() if wire_names.get(name, name) in sent}
