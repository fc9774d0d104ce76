"""The process that renders answer files: a request a line on its input, an answer a line on its output.

It can be killed, which a thread cannot, and it dies of an endless loop or of too much memory by itself, even when
its parent has died first.
"""

import json
import resource
import sys
from math import ceil
from typing import TypedDict

from pureboot.core.errors import Invalid
from pureboot.rendering.language import Values, render_file

# Of address space: Python itself takes a tenth of it.
MEMORY = 512 * 1024 * 1024
CPU_SECONDS = 5


class Request(TypedDict):
    text: str
    values: Values


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        request: Request = json.loads(line)
        _allow(CPU_SECONDS)
        sys.stdout.write(json.dumps(_answer(request)) + "\n")
        sys.stdout.flush()


def _answer(request: Request) -> dict[str, str]:
    try:
        return {"text": render_file(request["text"], request["values"])}
    except Invalid as error:
        return {"error": error.message, "code": error.code, "hint": error.hint}
    except (MemoryError, RecursionError):
        return {"error": "The template needs too much memory.", "code": "invalid_template", "hint": ""}


def _allow(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
