"""Routes of users: made, read, changed and deleted (§3.2)."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from services.identity import handlers, read_model
from services.identity.api.answers import User, user_answer, user_fields
from services.identity.domain.user import DEFAULT_USER_ID, UserUnknown
from services.identity.events import FirstKey, Role, UserLimits, WantedInvitation
from services.identity.settings import IdentitySettings
from services.keys.requests import CountedKeys, CountUserKeys, FindKey, FoundKey, ListedKeys, ListUserKeys
from shared.answers import Answer, JsonAnswer, from_wire
from shared.body import StrictRoute
from shared.durations import DurationText
from shared.errors import Refused
from shared.event_store import Transaction
from shared.idempotency import Idempotent
from shared.money import Money
from shared.permissions import Operation
from shared.principal import Principal, may, running
from shared.secret import NewKey, draw_key, draw_uuid
from shared.service import Running
from shared.values import Body, Email, Id, Metadata, Name, StringList
from shared.values import Query as QueryModel

router = APIRouter(route_class=StrictRoute, tags=["users"])

Identity = Annotated[Running[IdentitySettings], Depends(running("identity"))]
KEYS_SHOWN_MAX = 100

ROLES: dict[Role, tuple[str, str]] = {
    "proxy_admin": ("Admin (all permissions)", "may do everything"),
    "proxy_admin_viewer": ("Admin (view only)", "sees all keys, users, spend and usage, and changes nothing"),
    "internal_user": ("Internal user", "creates, sees and deletes own keys, and sees own spend"),
    "internal_user_viewer": ("Internal user (view only)", "sees own keys and own spend"),
}


class ModelUnknown(Refused):
    reason = "model_unknown"


def _strict_only(value: object) -> object:
    if value == "soft":
        raise PydanticCustomError("field_unsupported", "is not supported yet where it is soft")
    return value


class UserFields(Body):
    """What a user may be given. Rate limits, teams and SSO come with later versions, and are refused until then."""

    later: ClassVar[frozenset[str]] = frozenset(
        {
            "budget_limits",
            "max_parallel_requests",
            "tpm_limit",
            "rpm_limit",
            "sso_user_id",
            "password",
            "soft_budget",
        }
    )

    user_email: Email | None = None
    user_role: Role | None = None
    user_id: Id | None = None
    user_alias: Name | None = None
    models: StringList | None = None
    max_budget: Money | None = None
    budget_duration: DurationText | None = None
    budget_enforcement: Annotated[Literal["strict"] | None, BeforeValidator(_strict_only)] = None
    metadata: Metadata | None = None


class NewUserBody(UserFields):
    teams: list[Any] | None = None
    auto_create_key: bool = True
    send_invite_email: bool | None = None
    spend: Money | None = None


class UpdateUserBody(UserFields):
    spend: Any = None


class DeleteUsersBody(Body):
    user_ids: Annotated[list[Id], Field(min_length=1, max_length=500)]


class NewUserAnswer(User):
    key: str
    key_name: str | None
    token: str | None
    token_id: str | None
    expires: datetime | None
    key_id: str | None


class InvitedUserAnswer(NewUserAnswer):
    """With ``send_invite_email``."""

    invitation_ref: str


class UserInfoQuery(QueryModel):
    user_id: Id | None = None


class UserInfoAnswer(Answer):
    user_id: str
    user_info: User
    keys: list[dict[str, Any]]
    teams: list[dict[str, Any]] = []
    total_keys: int
    total_teams: int = 0


class UserListQuery(QueryModel):
    role: Role | None = None
    user_ids: str | None = None
    sso_user_ids: str | None = None
    user_email: Name | None = None
    search: Name | None = None
    team: Name | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=100)] = 25
    sort_by: Literal["created_at", "user_id", "user_email", "spend"] = "created_at"
    sort_order: Literal["asc", "desc"] = "asc"


class ListedUser(User):
    key_count: int


class UserListAnswer(Answer):
    users: list[ListedUser]
    total: int
    page: int
    page_size: int
    total_pages: int


class UpdatedUserAnswer(Answer):
    user_id: str
    data: User


@router.post("/user/new", response_model=NewUserAnswer | InvitedUserAnswer, openapi_extra=Idempotent("identity"))
async def new_user(
    identity: Identity, principal: Annotated[Principal, may(Operation.USER_NEW)], body: NewUserBody
) -> Response:
    """Make a user, a first key unless ``auto_create_key`` is false, and with ``send_invite_email`` an invitation."""
    settings = identity.settings
    _check_new(body, settings)

    async def make(tx: Transaction) -> tuple[dict[str, Any], NewKey | None, WantedInvitation | None]:
        drawn, user = _draw(tx, body, settings)
        await handlers.create_user(tx, user)
        row = await read_model.find_user(tx, user.user_id)
        if row is None:  # made by this request before it was cut off
            raise UserUnknown("user_id: the user was made, and deleted since", param="user_id")
        return user_fields(row, settings, tx.now), drawn, user.invitation

    fields, drawn, invitation = await identity.run(make)
    key: dict[str, Any] = {
        "key": drawn.key if drawn else "",
        "key_name": drawn.key_name if drawn else None,
        "token": drawn.token if drawn else None,
        "token_id": drawn.token if drawn else None,
        "expires": await _expiry_of(identity, drawn) if drawn else None,
        "key_id": drawn.key_id if drawn else None,
    }
    if invitation is not None:
        return JsonAnswer(InvitedUserAnswer(**fields, **key, invitation_ref=invitation.ref))
    return JsonAnswer(NewUserAnswer(**fields, **key))


def _draw(tx: Transaction, body: NewUserBody, settings: IdentitySettings) -> tuple[NewKey | None, handlers.NewUser]:
    user = _with_defaults(body, settings, tx)
    drawn = draw_key(tx.draw("first key")) if body.auto_create_key else None
    if drawn is not None:
        user = replace(user, first_key=FirstKey(key_id=drawn.key_id, token=drawn.token, key_name=drawn.key_name))
    if body.send_invite_email:
        user = replace(user, invitation=WantedInvitation(ref=draw_uuid(tx.draw("invitation")), send_email=True))
    return drawn, user


async def _expiry_of(identity: Running[IdentitySettings], drawn: NewKey) -> datetime | None:
    return (await identity.wire.ask("keys", FindKey(token=drawn.token), FoundKey)).expires_at


def _check_new(body: NewUserBody, settings: IdentitySettings) -> None:
    if body.spend:
        raise Refused("spend: is a record and can't be set", reason="field_read_only", param="spend")
    if body.teams:
        raise Refused("teams: there is no such team", reason="not_found", param="teams")
    check_models(body.models, settings)


def check_models(models: list[str] | None, settings: IdentitySettings) -> None:
    """Raises ``ModelUnknown`` for a name that neither is a model's nor stands for some."""
    known = {*settings.model_names, "all-proxy-models", "all-team-models", "no-default-models"}
    unknown = next((model for model in models or [] if model not in known), None)
    if unknown is not None:
        raise ModelUnknown(f"models: {unknown!r} is not a model here", param="models")


def _with_defaults(body: NewUserBody, settings: IdentitySettings, tx: Transaction) -> handlers.NewUser:
    """The gaps filled in §5.9's order: the request, the default parameters, the internal user's budget."""
    given = body.model_fields_set
    defaults = settings.default_internal_user_params
    role: Role = body.user_role or defaults.user_role or "internal_user_viewer"
    fill = defaults if role != "proxy_admin" else type(defaults)()
    budget = body.max_budget if "max_budget" in given else fill.max_budget
    duration = body.budget_duration if "budget_duration" in given else fill.budget_duration
    if role == "internal_user" and budget is None and "max_budget" not in given:
        budget = settings.max_internal_user_budget
    if role == "internal_user" and duration is None and "budget_duration" not in given:
        duration = settings.internal_user_budget_duration
    limits = UserLimits(
        models=tuple(body.models if body.models is not None else fill.models),
        max_budget_nano_usd=budget,
        budget_duration=duration,
        budget_set_at=tx.now if budget is not None or duration is not None else None,
        tpm_limit=fill.tpm_limit,
        rpm_limit=fill.rpm_limit,
        max_parallel_requests=fill.max_parallel_requests,
    )
    return handlers.NewUser(
        user_id=body.user_id or draw_uuid(tx.draw("user")),
        role=role,
        email=body.user_email,
        alias=body.user_alias,
        limits=limits,
        metadata=body.metadata or {},
    )


@router.get("/user/info", response_model=UserInfoAnswer)
async def user_info(
    identity: Identity,
    principal: Annotated[Principal, may(Operation.USER_INFO)],
    query: Annotated[UserInfoQuery, Query()],
) -> Response:
    """One user with their keys; the caller, if none is named (D13)."""
    user_id = query.user_id or principal.user_id
    principal.require(Operation.USER_INFO, owner_id=user_id)
    assert user_id is not None

    async def look(tx: Transaction) -> User:
        row = await read_model.find_user(tx, user_id)
        if row is None:
            raise UserUnknown("user_id: there is no such user", param="user_id")
        return user_answer(row, identity.settings, tx.now)

    user = await identity.run(look)
    listed = await identity.wire.ask("keys", ListUserKeys(user_id=user_id, limit=KEYS_SHOWN_MAX), ListedKeys)
    keys = [{**from_wire(key), "team_alias": None} for key in listed.keys]
    return JsonAnswer(UserInfoAnswer(user_id=user_id, user_info=user, keys=keys, total_keys=listed.total))


@router.get("/user/list", response_model=UserListAnswer)
async def list_users(
    identity: Identity,
    principal: Annotated[Principal, may(Operation.USER_LIST)],
    query: Annotated[UserListQuery, Query()],
) -> Response:
    """A page of users, each with the number of their keys."""
    if query.team is not None:
        raise Refused("team: there is no such team", reason="not_found", param="team")
    if query.sso_user_ids is not None:
        raise Refused("sso_user_ids: is not supported here yet", reason="field_unsupported", param="sso_user_ids")

    async def look(tx: Transaction) -> tuple[list[dict[str, Any]], int]:
        rows, total = await read_model.list_users(
            tx,
            role=query.role,
            user_ids=[part.strip() for part in (query.user_ids or "").split(",") if part.strip()],
            email_part=query.user_email,
            search=query.search,
            sort_by=query.sort_by,
            descending=query.sort_order == "desc",
            page=query.page,
            page_size=query.page_size,
        )
        return [user_fields(row, identity.settings, tx.now) for row in rows], total

    fields, total = await identity.run(look)
    question = CountUserKeys(user_ids=tuple(user["user_id"] for user in fields))
    counts = (await identity.wire.ask("keys", question, CountedKeys)).counts
    users = [ListedUser(**user, key_count=counts.get(user["user_id"], 0)) for user in fields]
    pages = -(-total // query.page_size)
    return JsonAnswer(
        UserListAnswer(users=users, total=total, page=query.page, page_size=query.page_size, total_pages=pages)
    )


@router.get("/user/available_roles")
async def available_roles(principal: Annotated[Principal, may(Operation.ROLES)]) -> Response:
    """The four roles, in words."""
    return JsonAnswer({role: {"description": text, "ui_label": label} for role, (label, text) in ROLES.items()})


@router.post("/user/update", response_model=UpdatedUserAnswer)
async def update_user(
    identity: Identity, principal: Annotated[Principal, may(Operation.USER_UPDATE)], body: UpdateUserBody
) -> Response:
    """Change a user; what is absent stays, what is null is cleared."""
    if "spend" in body.model_fields_set:
        raise Refused("spend: is a record and can't be set", reason="field_read_only", param="spend")
    if body.user_id is None and body.user_email is None:
        raise Refused("user_id or user_email: one of them is needed", reason="field_missing", param="user_id")

    async def change(tx: Transaction) -> User:
        user_id = await _update(tx, principal, body, identity.settings)
        row = await read_model.find_user(tx, user_id)
        assert row is not None
        return user_answer(row, identity.settings, tx.now)

    user = await identity.run(change)
    return JsonAnswer(UpdatedUserAnswer(user_id=user.user_id, data=user))


async def _update(tx: Transaction, principal: Principal, body: UpdateUserBody, settings: IdentitySettings) -> str:
    row = await read_model.find_user_to_change(tx, user_id=body.user_id, email=body.user_email)
    principal.require(Operation.USER_UPDATE, owner_id=row.user_id if row is not None else None)
    if row is None:
        param = "user_id" if body.user_id else "user_email"
        raise UserUnknown(f"{param}: there is no such user", param=param)
    _check_own(principal, body)
    check_models(body.models, settings)
    given = body.model_fields_set
    before = read_model.limits_of(row)
    await handlers.update_user(
        tx,
        row.user_id,
        role=(body.user_role if "user_role" in given else None) or row.role,
        email=body.user_email if "user_email" in given and body.user_id is not None else row.email,
        alias=body.user_alias if "user_alias" in given else row.alias,
        limits=_changed_limits(before, body, tx),
        metadata=(body.metadata or {}) if "metadata" in given else row.metadata,
    )
    return str(row.user_id)


def _check_own(principal: Principal, body: UpdateUserBody) -> None:
    """Users may change their alias and nothing else (§2.2, note 1)."""
    if principal.reaches_all(Operation.USER_UPDATE):
        return
    named = {"user_id"} if body.user_id is not None else {"user_email"}
    beyond = sorted(body.model_fields_set - named - {"user_alias"})
    if beyond:
        raise Refused(f"{beyond[0]}: only an admin may change it", reason="role_not_allowed", param=beyond[0])


def _changed_limits(before: UserLimits, body: UpdateUserBody, tx: Transaction) -> UserLimits:
    given = body.model_fields_set
    changes: dict[str, Any] = {}
    if "models" in given:
        changes["models"] = tuple(body.models or ())
    if "max_budget" in given:
        changes["max_budget_nano_usd"] = body.max_budget
    if "budget_duration" in given and body.budget_duration != before.budget_duration:
        changes |= {"budget_duration": body.budget_duration, "budget_set_at": tx.now}
    return before.model_copy(update=changes)


@router.post("/user/delete")
async def delete_users(
    identity: Identity, principal: Annotated[Principal, may(Operation.USER_DELETE)], body: DeleteUsersBody
) -> Response:
    """Delete users with their sessions, keys and open invitations: all of them, or none (D36)."""

    async def delete(tx: Transaction) -> int:
        user_ids = list(dict.fromkeys(body.user_ids))
        if DEFAULT_USER_ID in user_ids:
            await handlers.delete_user(tx, DEFAULT_USER_ID)
        for user_id in user_ids:
            await handlers.delete_user(tx, user_id)
        return len(user_ids)

    return JsonAnswer(await identity.run(delete))
