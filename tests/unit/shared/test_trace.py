"""What caused what goes from the request to the last subscriber, and stands in every line of the log (design §4)."""

import asyncio

import pytest
import structlog

from shared import trace
from shared.trace import SYSTEM, Trace

FULL = Trace("c", causation_id="e", actor="ada")


@pytest.mark.parametrize("given", [FULL, Trace("c"), Trace("c", actor="ada"), Trace("c", causation_id="e")])
def test_a_trace_goes_over_the_wire_and_comes_out_the_same(given: Trace) -> None:
    assert Trace.of(given.headers()) == given


def test_a_message_without_trace_starts_one_of_the_systems() -> None:
    first, second = Trace.of({}), Trace.of({"keystead-correlation": "", "keystead-actor": ""})
    assert first.correlation_id != second.correlation_id
    assert (first.actor, first.causation_id) == (second.actor, second.causation_id) == (SYSTEM, None)


def test_work_that_nobody_asked_for_starts_a_story_of_its_own() -> None:
    assert trace.current().actor == SYSTEM
    assert trace.current().correlation_id != trace.current().correlation_id


def test_work_in_a_block_is_done_under_its_trace_and_only_there() -> None:
    with trace.tracing(FULL) as inside:
        assert trace.current() is inside is FULL
        with trace.tracing(Trace("inner")):
            assert trace.current().correlation_id == "inner"
        assert trace.current() is FULL
    assert trace.current() is not FULL


def test_a_trace_ends_with_its_block_also_if_that_fails() -> None:
    with pytest.raises(KeyError), trace.tracing(FULL):
        raise KeyError
    assert trace.current().actor == SYSTEM


def test_lines_of_the_log_name_request_actor_and_cause() -> None:
    with trace.tracing(FULL):
        assert structlog.contextvars.get_contextvars() == {"correlation_id": "c", "actor": "ada", "causation_id": "e"}
    with trace.tracing(Trace("c")):
        assert structlog.contextvars.get_contextvars() == {"correlation_id": "c", "actor": SYSTEM}
    assert structlog.contextvars.get_contextvars() == {}


async def test_requests_at_once_do_not_mix_their_traces() -> None:
    async def work(number: int) -> str:
        with trace.tracing(Trace(f"request {number}")):
            await asyncio.sleep(0)
            return trace.current().correlation_id

    assert await asyncio.gather(*map(work, range(20))) == [f"request {number}" for number in range(20)]


async def test_what_a_request_starts_belongs_to_it() -> None:
    async def correlation() -> str:
        return trace.current().correlation_id

    with trace.tracing(FULL):
        task = asyncio.ensure_future(correlation())
    assert await task == "c"
