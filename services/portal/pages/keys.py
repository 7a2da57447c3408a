"""My keys: the list, a new one and its secret, and the end of one (§3.6)."""

import json
import shlex
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.portal import wording
from services.portal.client import Declined, Visit, visit_of
from services.portal.forms import Form, read_form
from services.portal.pages.me import Me, get_me
from services.portal.pages.route import Own, OwnRunning, PageRoute, see_other
from services.portal.portal import Portal
from services.portal.trouble import not_allowed, not_there
from shared.permissions import Operation
from shared.principal import may

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PAGE_SIZE = 25
PAGE_MAX = 100_000
TEXTS = ("key_alias", "max_budget", "budget_duration", "duration", "idempotency_key")
LISTS = ("models",)
NOTICES = {"key-deleted": "The key is deleted. Calls with it are refused from now on."}
# The names of fields as the form shows them, for sentences of the API's that begin with one.
LABELS = {
    "key_alias": "Name",
    "max_budget": "Budget",
    "budget_duration": "Reset of the budget",
    "duration": "Expiry",
    "models": "Models",
}
BUDGET_DURATIONS = {"": "Never", "1d": "Every day", "7d": "Every week", "1mo": "Every month", "1y": "Every year"}
DURATIONS = {"": "Never", "1d": "After a day", "7d": "After a week", "30d": "After 30 days", "90d": "After 90 days"}
DURATIONS |= {"1y": "After a year"}


@router.get("/ui", dependencies=[may(Operation.PORTAL)])
async def my_keys(own: Own, request: Request) -> Response:
    visit = visit_of(request)
    me = await get_me(own.api, visit)
    page = _page_number(request.query_params.get("page", ""))
    query = {"user_id": me.user_id, "return_full_object": "true", "size": PAGE_SIZE, "page": page}
    listed = await own.api.get(visit, "/key/list", **query)
    notice = NOTICES.get(request.query_params.get("notice", ""), "")
    return own.renderer.page("keys.html", me=me, keys=listed, notice=notice)


@router.get("/ui/keys/new", dependencies=[may(Operation.PORTAL)])
async def new_key_page(own: Own, request: Request) -> Response:
    visit = visit_of(request)
    me = await get_me(own.api, visit)
    if not me.may(Operation.KEY_GENERATE):
        raise not_allowed()
    return await _form(own, visit, me, Form({}, {}))


@router.post("/ui/keys", dependencies=[may(Operation.PORTAL)])
async def create_key(running: OwnRunning, own: Own, request: Request) -> Response:
    """The key is in this answer and in no other: not in an address, not in a cookie, not in a log."""
    form = await read_form(request, TEXTS, LISTS)
    visit = visit_of(request)
    me = await get_me(own.api, visit)
    once = quote(form.text("idempotency_key"))  # ours is as it was; of anything else a header takes no line's end
    try:
        made = await own.api.post(visit, "/key/generate", _asked(form), idempotency_key=once)
    except Declined as declined:
        if declined.status not in (400, 409, 422):
            raise
        return await _form(own, visit, me, form, faults=_faults(declined))
    snippet = _snippet(running.settings.base_url, made.content["key"], await _a_model(own, visit, made.content))
    return own.renderer.page("key_made.html", me=me, key=made.content, snippet=snippet)


@router.get("/ui/keys/{key_id}/delete", dependencies=[may(Operation.PORTAL)])
async def delete_key_page(own: Own, request: Request, key_id: str) -> Response:
    """Ask first: a deleted key never comes back."""
    visit = visit_of(request)
    me = await get_me(own.api, visit)
    if not me.may(Operation.KEY_DELETE):
        raise not_allowed()
    found = await own.api.get(visit, "/key/info", key=key_id)
    if found["info"]["status"] == "deleted":
        raise not_there()
    return own.renderer.page("key_delete.html", me=me, key=found["info"])


@router.post("/ui/keys/{key_id}/delete", dependencies=[may(Operation.PORTAL)])
async def delete_key(own: Own, request: Request, key_id: str) -> Response:
    await read_form(request, ())
    visit = visit_of(request)
    await get_me(own.api, visit)
    await own.api.post(visit, "/key/delete", {"keys": [key_id]})
    return see_other("/ui?notice=key-deleted")


async def _form(
    own: Portal, visit: Visit, me: Me, form: Form, *, faults: Mapping[str, str] = MappingProxyType({})
) -> Response:
    """The form as it was filled in; each time with an idempotency key of its own, for it may be filled in anew."""
    return own.renderer.page(
        "key_new.html",
        400 if faults else 200,
        me=me,
        form=form,
        faults=faults,
        models=await _models(own, visit),
        budget_durations=BUDGET_DURATIONS,
        durations=DURATIONS,
        idempotency_key=str(uuid.uuid4()),
    )


async def _models(own: Portal, visit: Visit) -> list[str]:
    listed = await own.api.get(visit, "/v1/models")
    return [model["id"] for model in listed["data"]]


async def _a_model(own: Portal, visit: Visit, key: Mapping[str, Any]) -> str:
    """One that the key may call, to show how."""
    names = list(key["models"]) or await _models(own, visit)
    return names[0] if names else "a-model"


def _asked(form: Form) -> dict[str, Any]:
    """The body of ``/key/generate``: what was left empty is not in it."""
    texts = {name: form.text(name).strip() for name in TEXTS if name != "idempotency_key"}
    asked: dict[str, Any] = {name: text for name, text in texts.items() if text}
    return asked | ({"models": list(form.items("models"))} if form.items("models") else {})


def _faults(declined: Declined) -> dict[str, str]:
    """The refusal beside the field that it is about, or over the form."""
    field = (declined.param or "").partition(".")[0]
    if declined.reason.startswith("idempotency_"):
        return {"": "This form was sent before, with something else in it. Look it over and send it again."}
    if field not in LABELS:
        return {"": wording.sentence(declined.message)}
    said = declined.message
    return {field: wording.sentence(LABELS[field] + said.removeprefix(field) if said.startswith(field) else said)}


def _snippet(base_url: str, key: str, model: str) -> str:
    """A first call, to be pasted into a terminal."""
    body = f"""{{"model": {json.dumps(model, ensure_ascii=False)},
       "messages": [{{"role": "user", "content": "Say hello."}}]}}"""
    lines = (
        f"curl {shlex.quote(f'{base_url}/v1/chat/completions')}",
        f"  -H {shlex.quote(f'Authorization: Bearer {key}')}",
        "  -H 'Content-Type: application/json'",
        f"  -d {shlex.quote(body)}",
    )
    return " \\\n".join(lines)


def _page_number(text: str) -> int:
    """The page that an address asks for; the first for what is no number of one."""
    return min(max(int(text), 1), PAGE_MAX) if text.isdecimal() and len(text) <= 9 else 1
