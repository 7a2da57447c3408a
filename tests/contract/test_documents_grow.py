"""`docs/openapi.json` and `docs/asyncapi.json` only grow: what a committed one promised, today's promises too (§1.1).

Each is compared with every version of it that git has. That today's are as the code is, is test_docs.py's.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.history import committed, needs_history

DOCS = Path(__file__).parents[2] / "docs"
METHODS = frozenset({"get", "put", "post", "delete", "patch"})
Document = Mapping[str, Any]
Schema = Mapping[str, Any]

# What was broken on purpose: the fault as it is told here, and why nobody was hurt by it.
NO_BODY = "a redirection has no body, and never had one: the document was wrong"
TEXT = "it is Prometheus's text, and always was: the document was wrong"
NEEDED = "without it a call was refused before, too: the document did not say so"
DELIBERATE: dict[str, str] = {
    "GET /logout: 303 is no application/json any more": NO_BODY,
    "POST /logout: 303 is no application/json any more": NO_BODY,
    "GET /metrics: 200 is no application/json any more": TEXT,
    **{f"POST {version}/chat/completions: messages is needed now": NEEDED for version in ("", "/v1")},
    **{f"POST {version}/completions: prompt is needed now": NEEDED for version in ("", "/v1")},
    **{f"POST {version}/embeddings: input is needed now": NEEDED for version in ("", "/v1")},
}


# What a client of the API may rely on


def breaks_of_openapi(old: Document, new: Document) -> Iterator[str]:
    """What a client that was written for ``old`` may find broken by ``new``, a line each."""
    for path, methods in old["paths"].items():
        for method in METHODS & methods.keys():
            name = f"{method.upper()} {path}"
            if method not in new["paths"].get(path, {}):
                yield f"{name} is gone"
                continue
            before, after = methods[method], new["paths"][path][method]
            yield from _asked(name, Pair(old, new, _body(before), _body(after)))
            yield from _asked_by_name(name, before.get("parameters", []), after.get("parameters", []))
            yield from _answered(name, old, new, before["responses"], after["responses"])


def _body(operation: Document) -> Schema:
    content: Mapping[str, Any] = operation.get("requestBody", {}).get("content", {})
    return next((media["schema"] for media in content.values()), {})


def _asked_by_name(name: str, old: list[Any], new: list[Any]) -> Iterator[str]:
    before, after = ({(each["in"], each["name"]): each for each in some} for some in (old, new))
    for place, parameter in before.keys() - after.keys():
        yield f"{name}: {place} {parameter} is taken no more"
    for place, parameter in after:
        was_needed = before.get((place, parameter), {}).get("required", False)
        if after[place, parameter].get("required") and not was_needed:
            yield f"{name}: {place} {parameter} is needed now"


def _answered(name: str, old: Document, new: Document, before: Document, after: Document) -> Iterator[str]:
    for status, answer in before.items():
        if status not in after:
            yield f"{name}: {status} is answered no more"
            continue
        for media, content in answer.get("content", {}).items():
            if media not in after[status].get("content", {}):
                yield f"{name}: {status} is no {media} any more"
                continue
            schemas = content.get("schema", {}), after[status]["content"][media].get("schema", {})
            yield from _told(f"{name}: {status}", Pair(old, new, *schemas))


# What a subscriber may rely on


def breaks_of_asyncapi(old: Document, new: Document) -> Iterator[str]:
    """The same, for a subscriber. Of an event's new version there is a new shape, and the old one is still read."""
    for name, channel in old["channels"].items():
        if name not in new["channels"]:
            yield f"{name} is told no more"
            continue
        if channel["address"] != new["channels"][name]["address"]:
            yield f"{name} is told elsewhere"
        before, after = (each["components"]["messages"][name]["payload"] for each in (old, new))
        version, next_version = (each["properties"]["schemaversion"]["const"] for each in (before, after))
        if next_version < version:
            yield f"{name} has gone back to version {next_version}"
        yield from _told(name, Pair(old, new, *(_without_version(each) for each in (before, after))))
        if next_version == version:
            yield from _the_same(name, Pair(old, new, before["properties"]["data"], after["properties"]["data"]))


def _without_version(payload: Schema) -> Schema:
    return {**payload, "properties": {n: of for n, of in payload["properties"].items() if n != "schemaversion"}}


def _the_same(name: str, pair: "Pair") -> Iterator[str]:
    """An event's shape is stored for ever: one more field is a new version (golden examples hold the values)."""
    old, new = pair.resolved()
    if added := sorted(new.get("properties", {}).keys() - old.get("properties", {}).keys()):
        yield f"{name}: {', '.join(added)} came without a new version"


# Shapes


class Pair:
    """A schema of the old document and what has become of it in the new one."""

    def __init__(self, old: Document, new: Document, before: Schema, after: Schema) -> None:
        self._documents = old, new
        self._schemas = before, after

    def resolved(self) -> tuple[Schema, Schema]:
        before, after = (_resolve(*each) for each in zip(self._documents, self._schemas, strict=True))
        return before, after

    def at(self, before: Schema, after: Schema) -> "Pair":
        return Pair(*self._documents, before, after)

    @property
    def references(self) -> tuple[Any, Any]:
        return self._schemas[0].get("$ref"), self._schemas[1].get("$ref")


def _resolve(document: Document, schema: Schema) -> Schema:
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _kinds(schema: Schema) -> set[str]:
    """The JSON types that a value may have; nothing where the schema does not say."""
    kinds = schema.get("type", [])
    return {kinds} if isinstance(kinds, str) else {*kinds}


def _choices(schema: Schema) -> list[Schema]:
    """The shapes that a value may have."""
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())] or [schema]


def _told(name: str, pair: Pair, above: tuple[Any, ...] = ()) -> Iterator[str]:
    """What is answered or told: nothing that was there may be missing, nor be anything that it could not be."""
    if pair.references in above:
        return
    above = (*above, pair.references) if any(pair.references) else above
    old, new = pair.resolved()
    olds, news = ([_resolve(d, c) for c in _choices(s)] for d, s in zip(pair._documents, (old, new), strict=True))
    kinds_before, kinds_now = ({k for each in some for k in _kinds(each)} for some in (olds, news))
    if kinds_before and (more := kinds_now - kinds_before - ({"integer"} if "number" in kinds_before else set())):
        yield f"{name} may be of type {', '.join(sorted(more))} now"
    for kind in ("const", "enum"):
        yield from _told_values(name, kind, old, new)
    for before in (each for each in olds if "properties" in each):
        # One of several shapes is compared with that of the new ones which is most like it.
        after = max(news, key=lambda each: len(before["properties"].keys() & each.get("properties", {}).keys()))
        yield from _told_fields(name, pair.at(before, after), above)
    if "items" in old:
        yield from _told(f"{name}[]", pair.at(old["items"], new.get("items", {})), above)


def _told_values(name: str, kind: str, old: Schema, new: Schema) -> Iterator[str]:
    if kind in old and old[kind] != new.get(kind):
        gone = [*({*old[kind]} - {*new.get(kind, ())})] if kind == "enum" else [old[kind]]
        if gone:
            yield f"{name} is {', '.join(sorted(map(str, gone)))} no more"


def _told_fields(name: str, pair: Pair, above: tuple[Any, ...]) -> Iterator[str]:
    old, new = pair.resolved()
    fields = new.get("properties", {})
    for field, schema in old["properties"].items():
        if field not in fields:
            yield f"{name}.{field} is gone"
            continue
        if field in old.get("required", ()) and field not in new.get("required", ()):
            yield f"{name}.{field} may be missing now"
        yield from _told(f"{name}.{field}", pair.at(schema, fields[field]), above)


def _asked(name: str, pair: Pair) -> Iterator[str]:
    """What is sent: nothing that was taken may be refused, and nothing be needed that was not."""
    old, new = pair.resolved()
    before, after = old.get("properties", {}), new.get("properties", {})
    for field in sorted(before.keys() - after.keys()):
        yield f"{name}: {field} is taken no more"
    for field in sorted({*new.get("required", ())} - {*old.get("required", ())}):
        yield f"{name}: {field} is needed now"
    for field in before.keys() & after.keys():
        yield from _taken(f"{name}: {field}", pair.at(before[field], after[field]))


def _taken(name: str, pair: Pair) -> Iterator[str]:
    old, new = pair.resolved()
    olds, news = ([_resolve(d, c) for c in _choices(s)] for d, s in zip(pair._documents, (old, new), strict=True))
    kinds_before, kinds_now = ({k for each in some for k in _kinds(each)} for some in (olds, news))
    if kinds_now and (gone := kinds_before - kinds_now - ({"integer"} if "number" in kinds_now else set())):
        yield f"{name} of type {', '.join(sorted(gone))} is taken no more"
    values_before, values_now = ({v for each in some for v in each.get("enum", ())} for some in (olds, news))
    if values_now and (missing := values_before - values_now):
        yield f"{name} {', '.join(sorted(map(str, missing)))} is taken no more"


# As they were committed

COMPARED: dict[str, Callable[[Document, Document], Iterator[str]]] = {
    "openapi.json": breaks_of_openapi,
    "asyncapi.json": breaks_of_asyncapi,
}


@cache
def today(name: str) -> Document:
    content: Document = json.loads((DOCS / name).read_text(encoding="utf-8"))
    return content


@needs_history
@pytest.mark.parametrize("name", COMPARED)
def test_nothing_that_a_committed_document_promised_is_gone(name: str) -> None:
    for commit, text in committed(DOCS / name):
        found = [fault for fault in COMPARED[name](json.loads(text), today(name)) if fault not in DELIBERATE]
        assert found == [], f"of {commit}"


# The comparing finds what it looks for


def changed(name: str, *path: str | int, to: Any = None) -> Document:
    """Today's document with one thing in it taken away, or made something else."""
    content = json.loads(json.dumps(today(name)))
    place = content
    for part in path[:-1]:
        place = place[part]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return content  # type: ignore[no-any-return]


NEW_USER = ("paths", "/user/new", "post")
USER = ("components", "schemas", "User")
BODY = ("components", "schemas", "NewUserBody")
KEY_GENERATED = ("components", "schemas", "KeyGenerated")
PAYLOAD = ("components", "messages", "KeyGenerated", "payload", "properties")
BREACHES: dict[str, tuple[str, tuple[str | int, ...], Any]] = {
    "a path": ("openapi.json", ("paths", "/user/new"), None),
    "an operation": ("openapi.json", NEW_USER, None),
    "an answer": ("openapi.json", (*NEW_USER, "responses", "200"), None),
    "a field of an answer": ("openapi.json", (*USER, "properties", "user_id"), None),
    "a field's type": ("openapi.json", (*USER, "properties", "user_id"), {"type": "integer"}),
    "a field that may be missing": ("openapi.json", (*USER, "required"), ["user_id"]),
    "a field that is taken": ("openapi.json", (*BODY, "properties", "user_alias"), None),
    "a field that is needed": ("openapi.json", (*BODY, "required"), ["user_id"]),
    "a header that is taken": ("openapi.json", (*NEW_USER, "parameters"), []),
    "a header that is needed": ("openapi.json", (*NEW_USER, "parameters", 0, "required"), True),
    "an event": ("asyncapi.json", ("channels", "KeyGenerated"), None),
    "an event's place": ("asyncapi.json", ("channels", "KeyGenerated", "address"), "keys.{stream}"),
    "an event's field": ("asyncapi.json", (*KEY_GENERATED, "properties", "token"), None),
    "an event's field's type": ("asyncapi.json", (*KEY_GENERATED, "properties", "token"), {"type": "integer"}),
    "an event's values": ("asyncapi.json", (*KEY_GENERATED, "properties", "key_type", "enum"), ["default"]),
    "an event's version": ("asyncapi.json", (*PAYLOAD, "schemaversion"), {"const": 0}),
    "a field of the envelope": ("asyncapi.json", (*PAYLOAD, "actor"), None),
    "one more field without a version": (
        "asyncapi.json",
        (*KEY_GENERATED, "properties", "more"),
        {"type": "string"},
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_found(breach: str) -> None:
    name, path, to = BREACHES[breach]
    assert [*COMPARED[name](today(name), changed(name, *path, to=to))] != []


GROWTH: dict[str, tuple[str, tuple[str | int, ...], Any]] = {
    "a path": ("openapi.json", ("paths", "/user/newer"), {}),
    "a field of an answer": ("openapi.json", (*USER, "properties", "more"), {"type": "string"}),
    "a field that may be sent": ("openapi.json", (*BODY, "properties", "more"), {"type": "string"}),
    "an event": ("asyncapi.json", ("channels", "KeyNoted"), {}),
    "words": ("asyncapi.json", ("channels", "KeyGenerated", "description"), "Elsewhere."),
}


@pytest.mark.parametrize("growth", GROWTH)
def test_what_only_grows_is_let_be(growth: str) -> None:
    name, path, to = GROWTH[growth]
    assert [*COMPARED[name](today(name), changed(name, *path, to=to))] == []


def test_each_deliberate_breach_says_why() -> None:
    assert [fault for fault, why in DELIBERATE.items() if not why] == []
