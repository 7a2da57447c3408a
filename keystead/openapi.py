"""``/openapi.json`` (§1.1): what the framework describes, and what it knows nothing of: credentials and refusals."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from shared.gate import OWN_PREFIX
from shared.permissions import PERMISSIONS, Kind
from shared.principal import operation_of

Document = dict[str, Any]

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_ERROR = {"message": _TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT, "reason": _TEXT}
_PROBLEM = {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT}
REFUSALS: Document = {
    "Refusal": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "object", "required": [*_ERROR], "properties": _ERROR}},
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457. `type` is urn:keystead:problem:<reason>.",
        "required": [*_PROBLEM],
        "properties": {**_PROBLEM, "instance": _TEXT, "param": _TEXT},
    },
}
CREDENTIALS: Document = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, the master key, or a session."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "token", "description": "A session's JWT."},
}
# How FastAPI would refuse what is malformed; here that is a refusal like any other (D4).
_NEVER_ANSWERED = "422"
_NEVER_USED = ("HTTPValidationError", "ValidationError")
# From an answer to what may be asked next: the second operation's parameter, or the member of its body, and where its
# value is in the first one's answer.
LINKS = (
    ("post /user/new", "get /user/info", "user_id", "$response.body#/user_id"),
    ("post /user/new", "post /user/update", "user_id", "$response.body#/user_id"),
    ("post /user/new", "post /invitation/new", "user_id", "$response.body#/user_id"),
    ("post /user/new", "post /key/generate", "user_id", "$response.body#/user_id"),
    ("post /user/new", "get /keystead/v1/budgets/{scope}", "scope", "user:{$response.body#/user_id}"),
    ("post /invitation/new", "get /invitation/info", "invitation_id", "$response.body#/ref"),
    ("post /invitation/new", "post /invitation/delete", "invitation_id", "$response.body#/ref"),
    ("post /invitation/new", "post /keystead/v1/invitations/{ref}/resend", "ref", "$response.body#/ref"),
    ("post /invitation/new", "get /onboarding/get_token", "invite_link", "$response.body#/id"),
    ("post /key/generate", "get /key/info", "key", "$response.body#/token"),
    ("post /key/generate", "post /key/update", "key", "$response.body#/token"),
    ("post /key/generate", "post /key/block", "key", "$response.body#/token"),
    ("post /key/generate", "post /key/unblock", "key", "$response.body#/token"),
    ("post /key/generate", "get /spend/logs", "api_key", "$response.body#/token"),
    ("get /v1/models", "get /v1/models/{model}", "model", "$response.body#/data/0/id"),
)


def describe(app: FastAPI, routes: Iterable[APIRoute]) -> Document:
    """All of ``app``; ``routes`` are its routes, which know what operation each is."""
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = {name: schema for name, schema in components.get("schemas", {}).items() if name not in _NEVER_USED}
    components |= {"schemas": schemas | REFUSALS, "securitySchemes": CREDENTIALS}
    for route in routes:
        if not route.include_in_schema:
            continue  # a page, which is for people
        for method in route.methods or ():
            _complete(document["paths"][route.path_format][method.lower()], route)
    _link(document["paths"])
    return document


def _link(paths: Document) -> None:
    described = {f"{method} {path}": each for path, of_path in paths.items() for method, each in of_path.items()}
    for source, target, name, expression in LINKS:
        if source in described and target in described:
            operation = described[target]
            in_body = name not in {parameter["name"] for parameter in operation.get("parameters", ())}
            given = {"requestBody": {name: expression}} if in_body else {"parameters": {name: expression}}
            links = described[source]["responses"]["200"].setdefault("links", {})
            links[operation["operationId"]] = {"operationId": operation["operationId"], **given}


def _complete(described: Document, route: APIRoute) -> None:
    described["responses"].pop(_NEVER_ANSWERED, None)
    described["responses"]["default"] = _refusal(own_route=route.path.startswith(OWN_PREFIX))
    operation = operation_of(route.dependant.dependencies)
    if operation is not None and PERMISSIONS[operation].kind is not Kind.OPEN:
        described["security"] = [{scheme: []} for scheme in CREDENTIALS]


def _refusal(*, own_route: bool) -> Document:
    media_type, name = ("application/problem+json", "Problem") if own_route else ("application/json", "Refusal")
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": "A refusal", "content": {media_type: {"schema": schema}}}
