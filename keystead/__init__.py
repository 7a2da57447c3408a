"""The command, and the only place that knows all services and composes them."""
