"""What those who run a process ask it: whether it lives, and whether it can do its work (§1.6)."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from services.gateway.passing import PassingOn
from shared.answers import JsonAnswer
from shared.body import StrictRoute
from shared.permissions import Operation
from shared.principal import may
from shared.service import Running

router = APIRouter(route_class=StrictRoute, tags=["probes"], dependencies=[may(Operation.HEALTH_PROBE)])


@router.get("/health/liveliness")
@router.get("/health/liveness")
@router.get("/livez")
async def alive() -> Response:
    """This process answers, whatever becomes of those it depends on."""
    return JsonAnswer("I'm alive!")


@router.get("/health/readiness")
@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Whether every service in this process can do its work.

    Services elsewhere are told of and do not count: calls of a gateway go on without most of them, and to take every
    gateway out for one of those would be worse than a 503 on its routes.
    """
    services: dict[str, Running[Any]] = request.app.state.services
    passing: dict[str, PassingOn] = request.app.state.passing
    found, others = await asyncio.gather(
        asyncio.gather(*(each.health() for each in services.values())),
        asyncio.gather(*(each.ready() for each in passing.values())),
    )
    connected = all(health.database for health in found)
    heard = all(health.nats for health in found)
    healthy = all(health.good for health in found)
    words = {name: _word(health.good) for name, health in zip(services, found, strict=True)}
    words |= {name: _word(good) for name, good in zip(passing, others, strict=True)}
    answer = {
        "status": _word(healthy),
        "db": "connected" if connected else "disconnected",
        "nats": "connected" if heard else "disconnected",
        "services": words,
    }
    return JsonAnswer(answer, status_code=200 if healthy else 503)


def _word(healthy: bool) -> str:
    return "healthy" if healthy else "unhealthy"
