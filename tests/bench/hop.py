"""What it costs to pass a request on to a service in another process: CPU and time a request, beside the same in one.

Run by `make bench`. Gateway, service and client share this process, so that its CPU is all there is; the rounds take
turns, so that a busy machine slows both alike.
"""

import time
from contextlib import AsyncExitStack
from typing import NamedTuple

import uvloop

from shared.log import configure
from tests.support.apart import apart
from tests.support.installation import Client, installation
from tests.support.servers import servers

ROUNDS, REQUESTS = 20, 100


class Cost(NamedTuple):
    cpu_ms: float
    ms: float


async def cost(client: Client, key: str) -> Cost:
    """Of one request, from a round of them, one after the other."""
    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(REQUESTS):
        await client.ok("GET", "/key/list", key=key)
    return Cost((time.process_time() - cpu) * 1000 / REQUESTS, (time.perf_counter() - began) * 1000 / REQUESTS)


async def main() -> None:
    async with AsyncExitStack() as stack:
        ways: dict[str, Client] = {
            "one process": await stack.enter_async_context(installation()),
            "passed on": await stack.enter_async_context(apart()),
        }
        keys = {name: (await client.ok("POST", "/key/generate", {}))["key"] for name, client in ways.items()}
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, client in ways.items():
                costs[name].append(await cost(client, keys[name]))
        best = {name: Cost(min(c.cpu_ms for c in some), min(c.ms for c in some)) for name, some in costs.items()}
        for name, found in best.items():
            print(f"{name:12} {found.cpu_ms:.2f} ms CPU, {found.ms:.2f} ms a request")
        floor, passed = best["one process"], best["passed on"]
        print(f"passed on / one process: CPU {passed.cpu_ms / floor.cpu_ms:.2f}, time {passed.ms / floor.ms:.2f}")


if __name__ == "__main__":
    configure("warning", "readable")
    with servers():
        uvloop.run(main())
