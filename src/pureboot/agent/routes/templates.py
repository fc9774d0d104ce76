"""`GET|HEAD /templates/{name}`: an answer file, rendered for the one node whose install is in progress.

The boot token says which node that is: `?token=…`, or the first part of the path, `/templates/token/…/user-data`, for
installers that only add names to an address (cloud-init).
"""

import logging
from asyncio import to_thread
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pureboot.agent.cache.content_index import CachedFile
from pureboot.agent.cache.state_cache import CachedNode, NodeStateCache
from pureboot.agent.content import ContentFetcher
from pureboot.agent.site import SiteState
from pureboot.agent.variables import TOKEN_PREFIX, Variables
from pureboot.core.errors import Busy, Forbidden, Invalid, NotFound
from pureboot.core.lifecycle import NodeState
from pureboot.core.node import Workflow
from pureboot.rendering.language import FILE_BYTES
from pureboot.rendering.renderer import Renderer

log = logging.getLogger(__name__)


class Templates:
    """`base_url` is how the machine reaches this agent."""

    def __init__(
        self,
        cache: NodeStateCache,
        site: SiteState,
        fetcher: ContentFetcher,
        renderer: Renderer,
        *,
        base_url: Callable[[Request], str],
    ) -> None:
        self._cache, self._site, self._fetcher, self._renderer = cache, site, fetcher, renderer
        self._variables = Variables(cache, site)
        self._base_url = base_url

    def routes(self) -> list[Route]:
        return [Route("/templates/{name:path}", self.answer, methods=["GET", "HEAD"])]

    async def answer(self, request: Request) -> Response:
        name, token = _asked(request)
        node, workflow = self._installing(token)
        if name not in workflow.templates:
            raise NotFound(
                f"The workflow {workflow.name} has no template {name[:100]!r}.",
                hint=f"It has {', '.join(sorted(workflow.templates)) or 'none'}.",
            )
        text = await to_thread(_read, await self._fetcher.fetch(workflow.templates[name]))
        values = self._variables.of(node, workflow, self._base_url(request))
        try:
            rendered = await self._renderer.render(text, values)
        except Invalid as error:
            log.error("template %s cannot be given to node %s: %s", name, node.node_id, error.message)
            raise
        log.info("template %s is given to node %s", name, node.node_id)
        return PlainTextResponse(rendered, headers={"cache-control": "no-store"})

    def _installing(self, token: str) -> tuple[CachedNode, Workflow]:
        """Raises Forbidden."""
        node = self._cache.by_token(token)
        workflow = self._site.workflow(node.workflow_id) if node else None
        if node is None or workflow is None or node.state is not NodeState.INSTALLING:
            raise Forbidden(
                "This is no boot token of an install in progress.",
                code="wrong_boot_token",
                hint="The machine's boot script carries one: pureboot.token on its command line.",
            )
        return node, workflow


def _asked(request: Request) -> tuple[str, str]:
    name: str = request.path_params["name"]
    if name.startswith(TOKEN_PREFIX):
        token, _, name = name.removeprefix(TOKEN_PREFIX).partition("/")
        return name, token
    return name, request.query_params.get("token", "")


def _read(file: CachedFile) -> str:
    if file.size > FILE_BYTES:
        raise Invalid(f"{file.name} is larger than {FILE_BYTES} bytes: no template.", code="invalid_template")
    try:
        return file.path.read_text("utf-8")
    except FileNotFoundError:
        raise Busy(f"{file.name} is being replaced.", hint="Ask again.") from None
    except UnicodeDecodeError:
        raise Invalid(f"{file.name} is no UTF-8 text: no template.", code="invalid_template") from None
