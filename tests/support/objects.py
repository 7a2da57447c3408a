"""The contract's objects (§3.1), as shapes: the fields that must be present, and the constant ones."""

import re
from collections.abc import Mapping

from tests.support.shapes import HASH, TIME, UUID, Shape, exactly, maybe, money

KEY_ID = re.compile(r"[0-9A-Za-z]{12}")
A_KEY = re.compile(r"sk-ks1_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}")
KEY_NAME = re.compile(r"sk-\.\.\.[0-9A-Za-z_-]{4}")
ROLE = re.compile(r"proxy_admin|proxy_admin_viewer|internal_user|internal_user_viewer")

Shapes = Mapping[str, Shape]

USER: Shapes = {
    "user_id": str,
    "user_email": maybe(str),
    "user_alias": maybe(str),
    "user_role": ROLE,
    "teams": exactly([]),
    "models": [str],
    "spend": money,
    "total_spend": money,
    "max_budget": maybe(money),
    "budget_duration": maybe(str),
    "budget_reset_at": maybe(TIME),
    "budget_limits": exactly(None),
    "budget_enforcement": exactly("strict"),
    "max_parallel_requests": maybe(int),
    "tpm_limit": maybe(int),
    "rpm_limit": maybe(int),
    "metadata": dict,
    "sso_user_id": exactly(None),
    "created_at": TIME,
    "updated_at": TIME,
    "team_id": exactly(None),
    "organization_id": exactly(None),
    "allowed_cache_controls": exactly([]),
    "model_spend": exactly({}),
    "model_max_budget": exactly({}),
    "organization_memberships": exactly([]),
}
# ... flat, plus the first key: the key itself is in this answer only (D7).
NEW_USER_WITHOUT_KEY: Shapes = {
    **USER,
    "key": exactly(""),
    "key_name": exactly(None),
    "token": exactly(None),
    "token_id": exactly(None),
    "expires": exactly(None),
    "key_id": exactly(None),
}
NEW_USER: Shapes = {
    **USER,
    "key": A_KEY,
    "key_name": KEY_NAME,
    "token": HASH,
    "token_id": HASH,
    "expires": maybe(TIME),
    "key_id": KEY_ID,
}

KEY_INFO: Shapes = {
    "key_name": KEY_NAME,
    "key_alias": maybe(str),
    "key_id": KEY_ID,
    "user_id": maybe(str),
    "team_id": exactly(None),
    "models": [str],
    "spend": money,
    "total_spend": money,
    "max_budget": maybe(money),
    "soft_budget": maybe(money),
    "budget_duration": maybe(str),
    "budget_reset_at": maybe(TIME),
    "budget_limits": exactly(None),
    "budget_id": exactly(None),
    "litellm_budget_table": exactly(None),
    "budget_enforcement": exactly("strict"),
    "tpm_limit": maybe(int),
    "rpm_limit": maybe(int),
    "max_parallel_requests": maybe(int),
    "metadata": dict,
    "tags": [str],
    "expires": maybe(TIME),
    "blocked": bool,
    "key_type": re.compile(r"default|llm_api|management|read_only"),
    "status": re.compile(r"active|expired|revoked"),
    "created_at": TIME,
    "created_by": str,
    "updated_at": TIME,
    "updated_by": str,
    "last_active": maybe(TIME),
    "rotation_count": exactly(0),
    "last_rotation_at": exactly(None),
    "grace_until": exactly(None),
    "aliases": exactly({}),
    "config": exactly({}),
    "permissions": exactly({}),
    "allowed_cache_controls": exactly([]),
    "allowed_routes": exactly([]),
    "model_spend": exactly({}),
    "model_max_budget": exactly({}),
    "organization_id": exactly(None),
    "soft_budget_cooldown": exactly(False),
    "auto_rotate": exactly(False),
    "rotation_interval": exactly(None),
}
KEY: Shapes = {**KEY_INFO, "token": HASH}
GENERATED_KEY: Shapes = {**KEY, "key": A_KEY, "token_id": HASH, "duration": maybe(str)}
UPDATED_KEY: Shapes = {**KEY, "key": HASH}
DELETED_KEY: Shapes = {**KEY, "status": exactly("deleted"), "deleted_at": TIME, "deleted_by": str}

USER_INFO: Shapes = {
    "user_id": str,
    "user_info": USER,
    "keys": [{**KEY, "team_alias": exactly(None)}],
    "teams": exactly([]),
    "total_keys": int,
    "total_teams": exactly(0),
}

LISTED_INVITATION: Shapes = {
    "user_id": str,
    "is_accepted": bool,
    "accepted_at": maybe(TIME),
    "expires_at": TIME,
    "created_at": TIME,
    "created_by": str,
    "updated_at": TIME,
    "updated_by": str,
    "ref": UUID,
    "status": re.compile(r"open|accepted|expired|revoked"),
    "email_sent": bool,
}
INVITATION: Shapes = {**LISTED_INVITATION, "id": str}

SPEND_ROW: Shapes = {
    "request_id": str,
    "call_type": re.compile(r"acompletion|atext_completion|aembedding|aresponses"),
    "api_key": HASH,
    "spend": money,
    "prompt_tokens": int,
    "completion_tokens": int,
    "total_tokens": int,
    "startTime": TIME,
    "endTime": TIME,
    "completionStartTime": TIME,
    "request_duration_ms": int,
    "model": str,
    "model_id": str,
    "model_group": str,
    "custom_llm_provider": str,
    "user": str,
    "team_id": exactly(""),
    "end_user": str,
    "metadata": {
        "usage_object": dict,
        "cost_breakdown": {"input_cost": money, "output_cost": money, "total_cost": money},
        "user_api_key": HASH,
        "user_api_key_alias": maybe(str),
        "user_api_key_user_id": str,
        "user_api_key_user_email": maybe(str),
        "user_api_key_team_id": exactly(None),
        "user_api_key_team_alias": exactly(None),
        "user_agent": maybe(str),
        "attempted_retries": int,
        "error_information": maybe({"error_code": str, "error_class": str, "error_message": str}),
    },
    "cache_hit": re.compile(r"True|False"),
    "cache_key": str,
    "request_tags": [str],
    "session_id": str,
    "status": re.compile(r"success|failure"),
    "requester_ip_address": maybe(str),
    "litellm_call_id": UUID,
    "api_base": exactly(""),
    "organization_id": exactly(""),
    "messages": exactly({}),
    "response": exactly({}),
}

# §5.6: the claims of a session's JWT, and of an onboarding's.
CLAIMS: Shapes = {
    "user_id": str,
    "key": str,
    "user_email": str,
    "user_role": ROLE,
    "login_method": exactly("username_password"),
    "auth_header_name": exactly("Authorization"),
    "server_root_path": exactly(""),
    "disabled_non_admin_personal_key_creation": exactly(False),
    "password_reset_required": exactly(False),
    "premium_user": exactly(False),
    "exp": int,
}
