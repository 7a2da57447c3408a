"""What Schemathesis is told: every refusal is looked at as the contract has it. It is named by SCHEMATHESIS_HOOKS."""

import json
from typing import Any

import schemathesis
from multidict import CIMultiDict

from tests.support.refusals import read_refusal

NOT_HTTP = b"Invalid HTTP request received."  # the server's own word for it


@schemathesis.check
def refusal_of_the_contract(_: Any, response: Any, case: Any) -> None:
    """§1.4: the shape, the status and type of each reason, and the headers."""
    if response.status_code < 400 or response.content == NOT_HTTP or response.request.method == "HEAD":
        return
    assert "json" in "".join(response.headers.get("content-type", [])), f"a refusal in no shape: {response.content!r}"
    headers = CIMultiDict((name, value) for name, values in response.headers.items() for value in values)
    read_refusal(case.formatted_path, response.status_code, json.loads(response.content), headers)
