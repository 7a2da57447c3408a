"""`/openapi.json` (contract §1.1): OpenAPI 3.1, every route and none that is not there, and all in it is so."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest_asyncio
from schemathesis.specs.openapi.definitions import OPENAPI_31

from tests.support.installation import Installation, installation
from tests.support.routes import plain, routes_of

ROOT = Path(__file__).parents[2]
OWN = "/keystead/v1/"
# §2.2: "no credential needed".
OPEN = {
    "POST /v2/login",
    "GET /logout",
    "POST /logout",
    "GET /onboarding/get_token",
    "GET /.well-known/jwks.json",
    "GET /openapi.json",
    *(f"GET {path}" for path in ("/health/liveliness", "/health/liveness", "/livez", "/health/readiness", "/readyz")),
}
WITHOUT_BODY = {
    "POST /logout",
    "POST /session/logout",
    "DELETE /keystead/v1/sessions",
    "DELETE /keystead/v1/sessions/{session_id}",
}


@dataclass
class Described:
    it: Installation
    document: dict[str, Any]

    def operations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, of_path in self.document["paths"].items():
            for method, operation in of_path.items():
                yield f"{method.upper()} {path}", operation

    def schema(self, found: dict[str, Any]) -> dict[str, Any]:
        """``found``, or what it refers to."""
        while "$ref" in found:
            found = self.resolved(found["$ref"])
        return found

    def resolved(self, reference: str) -> dict[str, Any]:
        found: Any = self.document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert isinstance(found, dict)
        return found


@pytest_asyncio.fixture(scope="module")
async def described() -> AsyncIterator[Described]:
    async with installation() as it:
        yield Described(it, await it.ok("GET", "/openapi.json", key=None))


async def test_it_is_openapi_3_1(described: Described) -> None:
    assert re.fullmatch(r"3\.1\.\d+", described.document["openapi"])
    assert described.document["info"]["title"] == "Keystead" and described.document["info"]["version"]


async def test_it_is_valid_and_what_the_documentation_holds(described: Described) -> None:
    faults = jsonschema_rs.Draft202012Validator(OPENAPI_31).iter_errors(described.document)
    assert [(fault.message, fault.instance_path) for fault in faults] == []
    written = (ROOT / "docs/openapi.json").read_text(encoding="utf-8")
    assert json.loads(written) == described.document


async def test_it_lists_every_route_and_none_that_is_not_there(described: Described) -> None:
    listed = [f"{name.partition(' ')[0]} {plain(name.partition(' ')[2])}" for name, _ in described.operations()]
    assert sorted(listed) == sorted(served.name for served in routes_of(described.it))


async def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(described: Described) -> None:
    names = [operation["operationId"] for _, operation in described.operations()]
    assert len(names) == len(set(names))
    assert [name for name, operation in described.operations() if not operation.get("description")] == []


async def test_every_reference_leads_somewhere(described: Described) -> None:
    references = set(_references(described.document))
    assert references
    for reference in references:
        assert described.resolved(reference), reference
    schemas = {f"#/components/schemas/{name}" for name in described.document["components"]["schemas"]}
    assert schemas <= references, "and nothing is described that nobody uses"


def _references(node: Any) -> Iterator[str]:
    match node:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for inner in node.values():
                yield from _references(inner)
        case list():
            for inner in node:
                yield from _references(inner)


async def test_path_parameters_are_those_of_the_path(described: Described) -> None:
    for name, operation in described.operations():
        declared = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", name)), name


async def test_what_takes_a_body_says_so(described: Described) -> None:
    for name, operation in described.operations():
        if name.startswith("GET ") or name in WITHOUT_BODY:
            assert "requestBody" not in operation, name
            continue
        assert operation["requestBody"]["content"].keys() == {"application/json"}, name


async def test_fields_that_are_refused_are_not_offered(described: Described) -> None:
    """Unknown ones are refused (D4), and so nothing more may be sent than is described."""
    for name, operation in described.operations():
        if "requestBody" not in operation or "completions" in name or "embeddings" in name:
            continue
        schema = described.schema(operation["requestBody"]["content"]["application/json"]["schema"])
        objects = [described.schema(each) for each in schema.get("anyOf", [schema])]
        assert [
            each for each in objects if each["type"] == "object" and each["additionalProperties"] is not False
        ] == []
        offered = {field for each in objects for field in each.get("properties", ())}
        assert not offered & {"tpm_limit", "rpm_limit", "budget_id", "soft_budget"}, name


async def test_refusals_are_described_as_they_are_answered(described: Described) -> None:
    """Never 422, which a framework would describe (D4)."""
    for name, operation in described.operations():
        assert "422" not in operation["responses"], name
        content = operation["responses"]["default"]["content"]
        path = name.partition(" ")[2]
        if path.startswith(OWN):
            assert content.keys() == {"application/problem+json"}, name
            schema = described.schema(content["application/problem+json"]["schema"])
            assert {*schema["required"]} == {"type", "title", "status", "detail"}
            assert schema["properties"].keys() == {"type", "title", "status", "detail", "instance", "param"}
        else:
            assert content.keys() == {"application/json"}, name
            schema = described.schema(content["application/json"]["schema"])
            error = described.schema(schema["properties"]["error"])
            assert error["properties"].keys() == {"message", "type", "param", "code", "reason"}
            assert {*error["required"]} == error["properties"].keys()


async def test_what_needs_a_credential_says_so(described: Described) -> None:
    schemes = described.document["components"]["securitySchemes"]
    for name, operation in described.operations():
        needed = operation.get("security", [])
        assert bool(needed) == (name not in OPEN), name
        assert all(scheme in schemes for each in needed for scheme in each), name


async def test_a_redirect_is_described_as_one(described: Described) -> None:
    for method in ("get", "post"):
        assert "303" in described.document["paths"]["/logout"][method]["responses"]


async def test_answers_have_the_members_that_are_described(described: Described) -> None:
    it = described.it
    user = await it.ok("POST", "/user/new", {"user_email": "ada@example.test"})
    for method, path, body in (
        ("get", "/user/info", None),
        ("get", "/user/list", None),
        ("post", "/key/generate", {}),
        ("get", f"/key/info?key={user['key_id']}", None),
        ("get", "/key/list", None),
        ("post", "/invitation/new", {"user_id": user["user_id"]}),
        ("get", "/keystead/v1/invitations", None),
        ("get", "/keystead/v1/sessions", None),
        ("post", "/user/update", {"user_id": user["user_id"], "user_alias": "Ada"}),
    ):
        answer = await it.ok(method.upper(), path, body)
        operation = described.document["paths"][path.partition("?")[0]][method]
        schema = described.schema(operation["responses"]["200"]["content"]["application/json"]["schema"])
        assert {*schema["required"]} <= answer.keys() <= schema["properties"].keys(), path
