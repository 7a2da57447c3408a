"""Logging, to standard error: structlog, readable for a person (``up``) or as JSON, a line an event (``serve``)."""

import logging
import sys
from typing import Literal

import structlog

LEVELS = ("debug", "info", "warning", "error", "critical")


def configure(level: str, form: Literal["readable", "json"]) -> None:
    """Set up logging for this process at one of ``LEVELS``; the standard library's loggers go the same way."""
    threshold = getattr(logging, level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if form == "json" else structlog.processors.UnicodeDecoder(),
    ]
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    )
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        # Standard error as it is when something is logged: a file that was closed since must not stop a relay.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), format="%(levelname)s %(name)s %(message)s")
    if form == "json":
        formatter = structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
        for handler in logging.root.handlers:
            handler.setFormatter(formatter)
    logging.getLogger("faststream").setLevel(logging.ERROR)
