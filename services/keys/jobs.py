"""What time causes: keys expire."""

from typing import Any

from services.keys import handlers, read_model
from shared.service import Job, Running

BATCH = 200


async def expire_keys(running: Running[Any]) -> None:
    """Note of keys whose time is over that it is, so that others hear of it."""
    for key_id in await running.run(read_model.list_due_key_ids, BATCH):
        await running.run(handlers.expire_key, key_id)


JOBS = (Job("expire_keys", 1.0, expire_keys),)
