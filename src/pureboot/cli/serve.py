"""Running one of the two programs until somebody stops it."""

import asyncio
import json
import logging
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import uvloop


class JsonLines(logging.Formatter):
    """One object a line, for collectors."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def run(program: Coroutine[Any, Any, None], *, log_level: str, log_format: str) -> None:
    handler = logging.StreamHandler()
    plain = logging.Formatter("{asctime} {levelname:<7} {name}: {message}", style="{")
    handler.setFormatter(JsonLines() if log_format == "json" else plain)
    logging.basicConfig(level=log_level.upper(), handlers=[handler])
    # A line for each request to central, or for what our own lines say already, is no news.
    for chatty in ("httpx2", "httpcore2", "alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(program)
