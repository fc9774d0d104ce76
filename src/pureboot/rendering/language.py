"""What an administrator's templates may say: Jinja's sandbox, these variables, and nothing that reaches outside.

A *line* (a kernel's command line, a boot address) only names variables and filters them, so it ends at once and is
rendered where it is needed. A *file* (preseed, kickstart, autoinstall, cloud-init) may decide and loop; it can be slow
or large, so it is rendered in a process of its own (`renderer`).
"""

import shlex
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pureboot.core.errors import Invalid
from pureboot.core.node import FACT_NAMES

# Each is one line of text. Facts are what the machine says of itself, empty where it said nothing: quote them.
VARIABLES: Mapping[str, str] = {
    "node.id": "the node's id",
    "node.mac": "52:54:00:aa:bb:01",
    "node.mac_hyphens": "52-54-00-aa-bb-01",
    "node.hostname": "as central has it, empty where it has none",
    "node.attempt": "which attempt of the install this is",
    **{f"node.{name}": "what the machine says of itself" for name in FACT_NAMES},
    "site.id": "the site's id",
    "site.name": "the site's name",
    "workflow.id": "the workflow's id",
    "workflow.name": "the workflow's name",
    "agent.url": "the site agent, as the machine reached it: http://10.0.0.2:8080",
    "agent.files": "content: http://10.0.0.2:8080/files",
    "agent.templates": "this attempt's answer files, its token included: add /NAME",
    "agent.report": "where an installer reports: http://10.0.0.2:8080/api/v1/report",
    "token": "proves that a report comes from this attempt; empty where none was issued",
}
# More is no answer file.
FILE_BYTES = 1024 * 1024
LINE_LENGTH = 8192

_CALM = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Getattr,
    nodes.Filter,
    nodes.Const,
    nodes.CondExpr,
    nodes.Test,
    nodes.Not,
    nodes.Compare,
    nodes.Operand,
)
_CALM_FILTERS = {"default", "d", "lower", "upper", "replace", "trim", "urlencode", "shell"}

Values = Mapping[str, Any]


@lru_cache(maxsize=1024)
def check_line(text: str) -> None:
    """Raises Invalid where it does more than name variables, or names one that there is not."""
    if "{" not in text:
        return
    _check_variables(tree := _parse(_LINES, text))
    for node in tree.find_all(nodes.Node):
        inner = isinstance(node, nodes.Getattr) and not isinstance(node.node, nodes.Name)
        busy = isinstance(node, nodes.Filter) and node.name not in _CALM_FILTERS
        if not isinstance(node, _CALM) or inner or busy:
            what = f"the filter {node.name}" if isinstance(node, nodes.Filter) else type(node).__name__.lower()
            raise Invalid(
                f"{what} cannot stand in one line.",
                code="invalid_template",
                hint=f"A line takes {{{{ variables }}}} and the filters {', '.join(sorted(_CALM_FILTERS))}.",
            )


@lru_cache(maxsize=256)
def _compiled(line: str) -> Template:
    """Each boot of an install renders its line, and compiling costs twenty times that."""
    return _LINES.from_string(line)


def check_file(text: str) -> None:
    """Raises Invalid for what cannot be rendered whatever the node: syntax, and variables that there are not."""
    _check_variables(_parse(_FILES, text))


def render_line(text: str, values: Values) -> str:
    """Each value in it is one word. Raises Invalid."""
    if "{" not in text:
        return text
    check_line(text)
    try:
        return _compiled(text).render(values)[:LINE_LENGTH]
    except Exception as error:  # noqa: BLE001 - whatever a template does wrong is the template's fault
        raise _fault(error) from None


def render_file(text: str, values: Values) -> str:
    """May take for ever, and any amount of memory: for `renderer` only. Raises Invalid, and MemoryError or
    RecursionError for what it takes too much of."""
    check_file(text)
    size, parts = 0, []
    try:
        for part in _FILES.from_string(text).generate(values):
            size += len(part)
            if size > FILE_BYTES:
                raise Invalid(f"The template makes more than {FILE_BYTES} characters.", code="invalid_template")
            parts.append(part)
    except (Invalid, MemoryError, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001
        raise _fault(error) from None
    return "".join(parts)


def _parse(environment: ImmutableSandboxedEnvironment, text: str) -> nodes.Template:
    try:
        return environment.parse(text)
    except TemplateSyntaxError as error:
        raise Invalid(f"Line {error.lineno} of the template: {error.message}", code="invalid_template") from None
    except RecursionError:
        raise Invalid("The template is nested too deeply.", code="invalid_template") from None


def _check_variables(tree: nodes.Template) -> None:
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    own |= {name.name for name in tree.find_all(nodes.Macro)} | set(_FILES.globals) | {"loop", "caller", "varargs"}
    for name, line in _named(tree):
        root = name.partition(".")[0]
        if root not in own and name not in VARIABLES and name not in _ROOTS:
            raise Invalid(
                f"Line {line} of the template: there is no variable {name}.",
                code="unknown_variable",
                hint=f"There are {', '.join(VARIABLES)}.",
            )


def _named(tree: nodes.Template) -> Iterator[tuple[str, int]]:
    """`node.hostname` as well as `node`, each with its line."""
    for name in tree.find_all(nodes.Name):
        yield name.name, name.lineno
    for attribute in tree.find_all(nodes.Getattr):
        if isinstance(attribute.node, nodes.Name):
            yield f"{attribute.node.name}.{attribute.attr}", attribute.lineno


def _fault(error: Exception) -> Invalid:
    if isinstance(error, TemplateError):
        return Invalid(f"The template cannot be rendered: {error.message}", code="invalid_template")
    return Invalid(f"The template cannot be rendered: {type(error).__name__}: {error}", code="invalid_template")


def _word(value: object) -> str:
    return "_".join(str(value).split())


def _environment(**options: Any) -> ImmutableSandboxedEnvironment:
    # Answer files are no HTML; what is in them is quoted for their own language, by `shell` and `tojson`.
    made = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, **options
    )
    made.globals = {name: made.globals[name] for name in ("range", "dict", "namespace")}
    made.filters["shell"] = lambda value: shlex.quote(str(value))
    return made


_ROOTS = {name.partition(".")[0] for name in VARIABLES}
_FILES = _environment()
_LINES = _environment(finalize=_word)
