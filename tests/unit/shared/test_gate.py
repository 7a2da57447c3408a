"""The gate: every request finds its route, then its principal, then whether its role may; only then it runs (§1.4)."""

import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from httpx2 import ASGITransport, AsyncClient, Response
from starlette.types import Receive, Scope, Send

from shared import trace
from shared.answers import JsonAnswer
from shared.errors import Refused
from shared.gate import Gate, answer_refusals
from shared.permissions import Operation, Role
from shared.principal import Principal, may
from tests.support.doors import gated

VERSION = "0.1.0+test"
ran: list[str] = []

router = APIRouter()
own_router = APIRouter(prefix="/keystead/v1")


class BudgetExceeded(Refused):
    reason = "budget_exceeded"


@router.get("/key/info")
async def key_info(principal: Annotated[Principal, may(Operation.KEY_INFO)]) -> Any:
    now = trace.current()
    return JsonAnswer({"user": principal.user_id, "actor": now.actor, "correlation_id": now.correlation_id})


@router.post("/key/info")
@router.post("/key/generate")
async def key_generate(request: Request, _: Annotated[Principal, may(Operation.KEY_GENERATE)]) -> Any:
    ran.append(request.url.path)
    await request.json()
    return JsonAnswer({})


@router.get("/key/{key}")
async def any_key(key: str, _: Annotated[Principal, may(Operation.KEY_INFO)]) -> Any:
    return JsonAnswer({"key": key})


@router.get("/livez")
async def livez(request: Request, principal: Annotated[Principal | None, may(Operation.HEALTH_PROBE)]) -> Any:
    return JsonAnswer({"principal": principal, "call_id": request.scope["keystead.call_id"]})


@router.get("/cached")
async def cached(_: Annotated[Principal | None, may(Operation.JWKS)]) -> Any:
    return JsonAnswer({}, headers={"Cache-Control": "max-age=60"})


@router.post("/v1/chat/completions")
async def chat(_: Annotated[Principal, may(Operation.MODEL_CALL)]) -> Any:
    raise BudgetExceeded(
        "it is used up", param="max_budget", headers={"Retry-After": "60", "x-litellm-call-id": "mine"}
    )


@router.get("/crash")
async def crash(_: Annotated[Principal | None, may(Operation.HEALTH_PROBE)]) -> Any:
    raise RuntimeError("a bug with a secret in it")


@own_router.get("/me")
async def me(_: Annotated[Principal, may(Operation.ME)]) -> Any:
    return JsonAnswer({})


async def identify(request: Request) -> Principal:
    """The credential is a role; a wrong one is none."""
    given = request.headers.get("Authorization", "")
    if given not in list(Role):
        raise Refused("a credential is needed", reason="credentials_missing")
    return Principal(f"the {given}", Role(given), "session")


def gate_before(*routers: APIRouter) -> Gate:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    answer_refusals(app)
    for each in routers:
        app.include_router(each)
    routes = [route for each in routers for route in each.routes]
    return gated(app, routes, identify, VERSION)


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    ran.clear()
    transport = ASGITransport(app=gate_before(router, own_router), raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://keystead.test") as client:
        yield client


def by(role: Role | str) -> dict[str, str]:
    return {"Authorization": str(role)}


def is_uuid(text: str) -> bool:
    return str(uuid.UUID(text)) == text


def reason_of(answer: Response) -> str:
    return str(answer.json()["error"]["reason"])


# The route


@pytest.mark.parametrize("headers", [{}, by("wrong"), by(Role.PROXY_ADMIN)], ids=["without", "wrong", "right"])
@pytest.mark.parametrize(
    "path", ["/", "/nope", "/key", "/key/info/", "/key/a/b", "/KEY/INFO", "/docs", "/openapi.json"]
)
async def test_an_unknown_route_is_404_with_and_without_credential(
    client: AsyncClient, path: str, headers: dict[str, str]
) -> None:
    answer = await client.get(path, headers=headers)
    assert (answer.status_code, reason_of(answer)) == (404, "route_unknown")
    assert answer.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/key/info", "GET, POST"),
        ("PUT", "/key/generate", "GET, POST"),  # it could also be a key named "generate"
        ("POST", "/livez", "GET"),
        ("OPTIONS", "/livez", "GET"),
        ("HEAD", "/livez", "GET"),
        ("GET", "/v1/chat/completions", "POST"),
        ("POST", "/key/a-key", "GET"),
        ("BREW", "/livez", "GET"),
    ],
)
@pytest.mark.parametrize("headers", [{}, by(Role.PROXY_ADMIN)], ids=["without", "with"])
async def test_a_known_path_with_another_method_is_405_and_says_which_are_allowed(
    client: AsyncClient, method: str, path: str, allow: str, headers: dict[str, str]
) -> None:
    answer = await client.request(method, path, headers=headers)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allow)
    assert method == "HEAD" or reason_of(answer) == "method_not_allowed"


async def test_a_route_that_names_no_operation_does_not_start() -> None:
    careless = APIRouter()

    @careless.get("/careless")
    async def route() -> None: ...

    with pytest.raises(ValueError, match="/careless names no operation"):
        gate_before(router, careless)


async def test_a_path_that_is_spelled_out_goes_before_one_with_a_parameter(client: AsyncClient) -> None:
    assert "user" in (await client.get("/key/info", headers=by(Role.INTERNAL_USER))).json()
    assert (await client.get("/key/k%20%2F1", headers=by(Role.INTERNAL_USER))).status_code == 404
    assert (await client.get("/key/k%201", headers=by(Role.INTERNAL_USER))).json() == {"key": "k 1"}


# The principal, and what its role may


@pytest.mark.parametrize("body", [b"", b"{", b"\xff" * 100])
async def test_without_credential_a_protected_route_is_401_whatever_the_body(client: AsyncClient, body: bytes) -> None:
    answer = await client.post("/key/generate", content=body)
    assert (answer.status_code, reason_of(answer)) == (401, "credentials_missing")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert ran == []


@pytest.mark.parametrize("body", [b"", b"{", b"{}"])
async def test_a_role_that_may_not_is_403_before_the_body_is_read(client: AsyncClient, body: bytes) -> None:
    answer = await client.post("/key/generate", content=body, headers=by(Role.INTERNAL_USER_VIEWER))
    assert (answer.status_code, reason_of(answer)) == (403, "role_not_allowed")
    assert ran == []


async def test_a_role_that_may_is_let_through_with_its_principal(client: AsyncClient) -> None:
    answer = await client.get("/key/info", headers=by(Role.INTERNAL_USER))
    assert answer.json()["user"] == "the internal_user"


async def test_an_open_route_asks_for_no_credential_and_looks_at_none(client: AsyncClient) -> None:
    for headers in ({}, by("wrong"), by(Role.PROXY_ADMIN)):
        answer = await client.get("/livez", headers=headers)
        assert (answer.status_code, answer.json()["principal"]) == (200, None)


async def test_what_a_request_causes_is_its_callers_and_its_own_story(client: AsyncClient) -> None:
    first = (await client.get("/key/info", headers=by(Role.INTERNAL_USER))).json()
    second = (await client.get("/key/info", headers=by(Role.INTERNAL_USER))).json()
    assert first["actor"] == second["actor"] == "the internal_user"
    assert uuid.UUID(first["correlation_id"]) != uuid.UUID(second["correlation_id"])
    assert trace.current().actor == trace.SYSTEM


# What every answer carries

EVERY_KIND = [
    ("GET", "/livez", None, 200),
    ("GET", "/cached", None, 200),
    ("GET", "/key/info", Role.INTERNAL_USER, 200),
    ("GET", "/key/info", None, 401),
    ("POST", "/key/generate", Role.PROXY_ADMIN_VIEWER, 403),
    ("GET", "/nope", None, 404),
    ("PUT", "/livez", None, 405),
    ("POST", "/v1/chat/completions", Role.INTERNAL_USER, 429),
    ("GET", "/keystead/v1/me", None, 401),
    ("GET", "/keystead/v1/nope", None, 404),
    ("GET", "/crash", None, 500),
]


@pytest.mark.parametrize(("method", "path", "role", "status"), EVERY_KIND)
async def test_every_answer_carries_the_headers_of_all(
    client: AsyncClient, method: str, path: str, role: Role | None, status: int
) -> None:
    headers = by(role) if role else {}
    answer = await client.request(method, path, headers={**headers, "x-litellm-call-id": "the client's"})
    assert answer.status_code == status
    assert is_uuid(answer.headers["x-request-id"])
    assert answer.headers["x-keystead-version"] == VERSION
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == ("max-age=60" if path == "/cached" else "no-store")
    assert ("x-litellm-call-id" in answer.headers) == (status in (403, 429))
    if status in (403, 429):
        assert is_uuid(answer.headers["x-litellm-call-id"]), "made by Keystead, never taken from the client"
    assert [name for name in answer.headers if name.lower() == "x-request-id"] == ["x-request-id"]


@pytest.mark.parametrize("request_id", ["a", "0f6e:client/7._+=@-", "x" * 128])
@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/nope", 404)])
async def test_the_clients_request_id_is_given_back(
    client: AsyncClient, request_id: str, path: str, status: int
) -> None:
    answer = await client.get(path, headers={"x-request-id": request_id})
    assert (answer.status_code, answer.headers["x-request-id"]) == (status, request_id)


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a\tb", 'a"b', "a,b", "<a>", "é", "a;b", "{a}"])
async def test_a_request_id_that_is_not_safe_is_replaced(client: AsyncClient, request_id: str) -> None:
    answer = await client.get("/livez", headers={b"x-request-id": request_id.encode()})
    assert is_uuid(answer.headers["x-request-id"])


async def test_a_refusal_of_a_route_is_answered_in_the_shape_of_its_kind(client: AsyncClient) -> None:
    answer = await client.post("/v1/chat/completions", headers=by(Role.INTERNAL_USER))
    assert answer.json() == {
        "error": {
            "message": "it is used up",
            "type": "budget_exceeded",
            "param": "max_budget",
            "code": "429",
            "reason": "budget_exceeded",
        }
    }
    assert answer.headers["Retry-After"] == "60"
    problem = await client.get("/keystead/v1/me")
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert (problem.json()["type"], problem.json()["status"]) == ("urn:keystead:problem:credentials_missing", 401)


async def test_what_nobody_expected_is_told_to_nobody(client: AsyncClient) -> None:
    assert "secret" not in (await client.get("/crash")).text


async def test_what_is_not_http_is_passed_on() -> None:
    passed: list[str] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        passed.append(scope["type"])

    async def nothing(*_: Any) -> Any: ...

    await gated(app, [], identify, VERSION)({"type": "lifespan"}, nothing, nothing)
    assert passed == ["lifespan"]
