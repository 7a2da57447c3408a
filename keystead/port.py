"""A TCP port, as people write it."""

import re

PORT_MAX = 65535


def parse_port(value: object) -> int:
    """Raises ``ValueError``."""
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) <= PORT_MAX:
        raise ValueError(f"is not a port (1 to {PORT_MAX})")
    return int(text)
