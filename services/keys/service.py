"""Keys: owns keys, their limits and their life cycle; tells of each change; hears of users, and of what keys spent."""

from services.keys import api, jobs, read_model, subscriptions
from services.keys.events import CATALOG
from services.keys.requests import CountUserKeys, FindKey, ListUserKeys
from services.keys.settings import KeysSettings
from shared.service import Service

SERVICE = Service(
    name="keys",
    settings=KeysSettings,
    catalog=CATALOG,
    routes=(api.router,),
    metadata=read_model.METADATA,
    projections=(read_model.KEYS, read_model.OWNERS, read_model.SPEND),
    subscriptions=subscriptions.SUBSCRIPTIONS,
    answers={
        FindKey: subscriptions.find_key,
        ListUserKeys: subscriptions.list_user_keys,
        CountUserKeys: subscriptions.count_user_keys,
    },
    jobs=jobs.JOBS,
)
