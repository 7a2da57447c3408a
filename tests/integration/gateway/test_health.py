"""Health, readiness and metrics: who is told what, and that probes cost nothing (§1.6)."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest_asyncio

from keystead.app import SERVICES
from tests.support.eventually import eventually
from tests.support.gateway_world import World, gateway_world, model, world_apart
from tests.support.servers import postgres_url

ALIVE = ("/health/liveliness", "/health/liveness", "/livez")
READY = ("/health/readiness", "/readyz")
NAMES = {service.name for service in SERVICES}
CONTENT = {"keystead_settings": {"revocation_bound": "2s"}}


def models(provider: str) -> list[dict[str, Any]]:
    return [model(name, provider) for name in ("paid", "fail-500", "reject-400", "gated")]


@pytest_asyncio.fixture(scope="module")
async def world(provider: str) -> AsyncIterator[World]:
    async with gateway_world(provider, models(provider)) as made:
        yield made


async def ready(world: World, path: str = "/readyz") -> tuple[int, Any]:
    return await world.it.call("GET", path, key=None)


async def metrics(world: World) -> dict[str, float]:
    """The numbers, by name and labels."""
    text: str = await world.it.ok("GET", "/metrics")
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_a_process_that_answers_is_alive(world: World) -> None:
    for path in ALIVE:
        assert await world.it.call("GET", path, key=None) == (200, "I'm alive!")


async def test_a_process_is_ready_when_all_its_services_are(world: World) -> None:
    for path in READY:
        status, answer = await ready(world, path)
        assert (status, answer) == (
            200,
            {
                "status": "healthy",
                "db": "connected",
                "nats": "connected",
                "services": dict.fromkeys(NAMES, "healthy"),
            },
        )


async def test_another_worker_is_ready_for_itself(world: World) -> None:
    status, answer = await world.it.call("GET", "/readyz", key=None, url=world.second)
    assert (status, answer["services"]) == (200, {"gateway": "healthy"})


async def test_without_budgets_a_worker_is_not_ready_and_then_it_is_again(provider: str) -> None:
    async with world_apart(provider, models(provider), CONTENT) as (apart, budgets):
        assert (await ready(apart))[0] == 200
        await budgets.go()

        async def unready() -> bool:
            return (await ready(apart))[0] == 503

        await eventually(unready, 10)
        _, answer = await ready(apart)
        others = dict.fromkeys(NAMES - {"budgets", "gateway"}, "healthy")
        assert answer["services"] == others | {"gateway": "unhealthy"}
        assert (answer["status"], answer["db"]) == ("unhealthy", "connected")
        assert await apart.it.call("GET", "/livez", key=None) == (200, "I'm alive!")
        await budgets.come_back()

        async def ready_again() -> bool:
            return (await ready(apart))[0] == 200

        await eventually(ready_again, 15)


async def test_without_a_database_a_process_is_alive_and_not_ready(provider: str) -> None:
    async with gateway_world(provider, models(provider)) as cut_off:
        name = cut_off.it.owner_url.rpartition("/")[2]
        admin = await asyncpg.connect(postgres_url())
        try:
            await admin.execute(f'alter database "{name}" allow_connections false')
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and usename <> current_user",
                name,
            )

            async def unready() -> bool:
                return (await ready(cut_off))[0] == 503

            await eventually(unready)
            _, answer = await ready(cut_off)
            assert (answer["status"], answer["db"], answer["nats"]) == ("unhealthy", "disconnected", "connected")
            assert set(answer["services"].values()) == {"unhealthy"}
            assert await cut_off.it.call("GET", "/livez", key=None) == (200, "I'm alive!")
            await admin.execute(f'alter database "{name}" allow_connections true')

            async def ready_again() -> bool:
                return (await ready(cut_off))[0] == 200

            await eventually(ready_again, 15)
        finally:
            await admin.close()


async def test_health_tells_of_the_calls_that_were_seen_and_makes_none(world: World) -> None:
    key = await world.key()
    await world.forget()
    for name in ("paid", "fail-500", "reject-400"):
        await world.call(key, name)
    seen = len(await world.seen())
    report = await world.it.ok("GET", "/health")
    assert {entry["model"] for entry in report["healthy_endpoints"]} == {"openai/paid", "openai/reject-400"}
    (unhealthy,) = report["unhealthy_endpoints"]
    assert (unhealthy["model"], unhealthy["error"]) == ("openai/fail-500", "upstream_failed")
    assert (report["healthy_count"], report["unhealthy_count"]) == (2, 1)
    assert len(await world.seen()) == seen


async def test_health_and_metrics_are_for_admins_and_their_viewers(world: World) -> None:
    for path in ("/health", "/metrics"):
        assert (await world.it.call("GET", path, key=None))[0] == 401
        for role, expected in (
            ("proxy_admin", 200),
            ("proxy_admin_viewer", 200),
            ("internal_user", 403),
            ("internal_user_viewer", 403),
        ):
            key = await world.key(user_id=await world.user(user_role=role))
            assert (await world.it.call("GET", path, key=key.key))[0] == expected


async def test_metrics_count_calls_with_keys_by_hash_and_name_nobody(world: World) -> None:
    user_id = await world.user(user_email="somebody@example.test", user_alias="Somebody")
    key = await world.key(user_id=user_id, max_budget=0.01, key_alias="somebodys laptop")
    assert (await world.call(key, max_tokens=5, user="somebody@example.test")).status == 200
    assert (await world.call(key, max_tokens=5, stream=True)).status == 200
    assert (await world.call(key, max_tokens=5)).status == 429
    assert (await world.call(key, "fail-500", max_tokens=0)).status in (400, 502)
    assert (await world.call(key, "made up by the client")).status == 403
    counted = await metrics(world)
    of_call = f'{{hashed_api_key="{key.token}",model="openai/paid",requested_model="paid"}}'
    assert counted[f"litellm_spend_metric_total{of_call}"] == 0.01
    assert counted[f"litellm_total_tokens_metric_total{of_call}"] == 30
    assert counted[f"litellm_input_tokens_metric_total{of_call}"] == 20
    assert counted[f"litellm_output_tokens_metric_total{of_call}"] == 10
    requests, failures = (
        sum(value for name, value in counted.items() if name.startswith(f"{metric}_total{{") and key.token in name)
        for metric in ("litellm_proxy_total_requests_metric", "litellm_proxy_failed_requests_metric")
    )
    assert (requests, failures) == (5, 3)
    text: str = await world.it.ok("GET", "/metrics")
    for name in ("somebody", "Somebody", "laptop", "@", "made up", user_id, key.key):
        assert name not in text


async def test_calls_under_way_are_counted_until_they_have_ended(world: World) -> None:
    key = await world.key()
    async with world.streaming(key, "gated") as stream:
        await stream.event()
        assert (await metrics(world))["litellm_in_flight_requests"] == 1
        await world.go()
        await stream.rest()

    async def none_left() -> bool:
        return (await metrics(world))["litellm_in_flight_requests"] == 0

    await eventually(none_left)
