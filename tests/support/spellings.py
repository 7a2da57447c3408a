"""What somebody may not do, asked for in every way that might be taken for something else (§2.2)."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from fastapi.routing import APIRoute

from keystead.app import SERVICES
from shared.permissions import PERMISSIONS, Kind, Operation, Reach
from shared.principal import operation_of

# Ways to write a path that some reader may take for another, or for the same where others do not.
SPELLINGS = """
    /{p} //{p} ///{p} /./{p} /x/../{p} /../{p} /%2e/{p} /%2e%2e/{p} /livez/../{p} /livez/%2e%2e/{p} /livez/..%2f{p}
    /livez/..;/{p} /livez/..%5c{p} /ui/../{p} /keystead/v1/verify/../../../{p} /v1/models/..%2f..%2f{p} /%2f{p}
    /%5c{p} /{p}/ /{p}// /{p}/. /{p}/%2e /{p}/.. /{p}. /{p}%2e /{p}; /{p};x=1 /{p}%3bx /{p}%00 /{p}%00.css /{p}%20
    /{p}%09 /{p}%0d%0a /{p}%0a /{p}%2f /{p}%5c /{p}%3f /{p}%23 /{p}#x /{p}?_method=GET /{p}.json /{p}~ /{p}%ff
    /{p}%c0%ae /;/{p} /.;/{p} /%c0%af{p} /%e2%81%84{p} http://evil.example/{p} HTTP://evil.example/{p}
    http://a@evil.example/{p} //evil.example/{p} /{upper} /{title} /{one} /{all} /{twice} /{slashes} /{backslashes}
    /{encoded_backslashes} /{doubled} /{dotted}
""".split()
OTHER_METHODS = ("HEAD", "OPTIONS", "GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get", "Post")
# What some program somewhere believes of a header: another method, another path, another caller.
BELIEVED = """
    X-HTTP-Method-Override: GET | X-HTTP-Method: GET | X-Method-Override: GET | X-Original-Method: GET
    X-Original-URL: /livez | X-Rewrite-URL: /livez | X-Original-URI: /livez | X-Forwarded-Uri: /livez
    X-Forwarded-Prefix: /x | X-Forwarded-Path: /livez | X-Accel-Redirect: /livez | X-Sendfile: /etc/passwd
    X-Forwarded-For: 127.0.0.1 | X-Real-IP: 127.0.0.1 | Forwarded: for=127.0.0.1 | X-Forwarded-User: default_user_id
    X-Keystead-User: default_user_id | X-Keystead-Role: proxy_admin | X-Keystead-Principal: a.b.c
    X-Keystead-Visitor: a.b.c | X-Keystead-Call: a | Remote-User: default_user_id | litellm-changed-by: default_user_id
"""
HEADERS = [each.strip().encode() for line in BELIEVED.strip().splitlines() for each in line.split("|") if each.strip()]


class Asked(NamedTuple):
    """A request by somebody whom the table refuses it, written so that it might be taken for another."""

    method: str
    target: bytes
    credential: str
    header: bytes = b""

    @property
    def raw(self) -> bytes:
        lines = [self.method.encode() + b" " + self.target + b" HTTP/1.1", b"Host: keystead.test", b"Connection: close"]
        lines += [b"Authorization: Bearer " + self.credential.encode()] if self.credential else []
        lines += [self.header] if self.header else []
        body = b"" if self.method in ("GET", "HEAD") else b"{}"
        lines += [b"Content-Type: application/json", b"Content-Length: 2"] if body else []
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


def asked_otherwise(credential: str) -> list[Asked]:
    """All that an internal_user_viewer with that credential may not do, and what they may, without it."""
    served = {(method, path) for method, path, _ in _served()}
    return [
        asked
        for method, path, operation in _served()
        if (row := PERMISSIONS[operation]).kind is not Kind.OPEN
        for asked in _asked(credential if row.internal_user_viewer is Reach.NONE else "", method, path)
        if asked.method == method or (asked.method, path) not in served
    ]


def _served() -> Iterator[tuple[str, str, Operation]]:
    """From the routes and the table themselves, so that a new route is tried without being named."""
    for service in SERVICES:
        for route in (each for router in service.routes for each in router.routes if isinstance(each, APIRoute)):
            operation = operation_of(route.dependant.dependencies)
            assert operation is not None
            path = re.sub(r"{[^}]*}", "x", route.path)
            yield from ((method, path, operation) for method in sorted(route.methods or ()))


def _asked(who: str, method: str, path: str) -> Iterator[Asked]:
    for target in _spelled(path):
        yield Asked(method, target, who)
    for other in OTHER_METHODS:
        yield Asked(other, path.encode(), who)
    for header in HEADERS:
        yield Asked(method, path.encode(), who, header)


def _spelled(path: str) -> Iterator[bytes]:
    p = path.removeprefix("/")
    written = {
        "p": p,
        "upper": p.upper(),
        "title": p.title(),
        "one": f"%{ord(p[0]):02x}{p[1:]}",
        "all": "".join(f"%{ord(c):02X}" if c.isalpha() else c for c in p),
        "twice": f"%25{ord(p[0]):02x}{p[1:]}",
        "slashes": p.replace("/", "%2f"),
        "backslashes": p.replace("/", "\\"),
        "encoded_backslashes": p.replace("/", "%5c"),
        "doubled": p.replace("/", "//"),
        "dotted": p.replace("/", "/./"),
    }
    return (spelling.format(**written).encode() for spelling in SPELLINGS)
