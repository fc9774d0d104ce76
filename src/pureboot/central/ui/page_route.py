"""Routes that answer people: who it is, whether it was meant, and errors as pages."""

import logging

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from pureboot.central.edge import BoundedRequest, Handler, OpenRoute
from pureboot.central.ui import held
from pureboot.central.ui.form import Form
from pureboot.central.ui.view import view_of
from pureboot.central.ui.visit import SAFE, Visit, is_htmx, is_live, is_meant, receive, sign_in_path
from pureboot.core.errors import Invalid, PureBootError

log = logging.getLogger(__name__)

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


class OpenPageRoute(OpenRoute):
    """A page for whoever comes. Where the visitor is signed in, a form has to come from a page of that session."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            request.state.visit = Visit(None, "", Form())
            try:
                request.state.visit = await receive(BoundedRequest(request.scope, request.receive))
                answer = await self.admit(request, handle)
            except PureBootError as error:
                answer = _error_page(request, error)
            except RequestValidationError as error:
                answer = _error_page(request, _invalid(error))
            except HTTPException as error:
                if not isinstance(error.__cause__, PureBootError):
                    raise
                answer = _error_page(request, error.__cause__)
            answer.headers.update({name: value for name, value in HEADERS.items() if name not in answer.headers})
            return answer

        return page

    async def admit(self, request: Request, handle: Handler) -> Response:
        return await handle(request)


class PageRoute(OpenPageRoute):
    """Needs somebody who is signed in; which role, the handler says by `AsViewer` and its sisters."""

    async def admit(self, request: Request, handle: Handler) -> Response:
        visit: Visit = request.state.visit
        if visit.session is None:
            return _nobody(request, visit)
        if not is_meant(visit, request):
            return _held(request, visit, "held.html", 403)
        request.state.sender = visit.session.person
        return await handle(request)


def _nobody(request: Request, visit: Visit) -> Response:
    """What was typed is kept in the sign-in form; what a page asks for by itself changes nothing in it."""
    view = view_of(request)
    if request.method not in SAFE:
        return _held(request, visit, "sign-in.html", 401)
    if request.headers.get("accept") == "text/event-stream":
        # The one answer that a browser takes for the stream's end.
        return Response(status_code=204)
    if is_live(request) or is_htmx(request):
        answer = view.page("parts/signed-out.html", 401)
        answer.headers.update({"hx-retarget": "#notices", "hx-reswap": "innerHTML", "hx-reselect": "unset"})
        return answer
    return view.go(sign_in_path(request))


def _held(request: Request, visit: Visit, template: str, code: int) -> Response:
    """Nothing was done. What was typed, under another session or after it, is shown and can be sent again."""
    answer = view_of(request).page(template, code, **held.form(request, visit.form))
    if is_htmx(request):
        answer.headers.update({"hx-retarget": "body", "hx-reswap": "innerHTML", "hx-reselect": "unset"})
    return answer


def _invalid(error: RequestValidationError) -> Invalid:
    first = error.errors()[0]
    where = str(first["loc"][-1])
    return Invalid(f"{where}: {first['msg']}.", hint="Go back, and mend the address or the form.")


def _error_page(request: Request, error: PureBootError) -> Response:
    answer = view_of(request).page("error.html", error=error)
    if is_htmx(request):
        answer.headers.update({"hx-retarget": "#notices", "hx-reswap": "innerHTML", "hx-reselect": "#error"})
    return answer
