"""Serves the browser page at `/` and, if keys are set, its login.

The page loads nothing from other sites.
"""

from functools import cache
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serve.errors import NotFound
from serve.login import LIFE_S, LOGIN_POLICY, login_page, safe_query
from serve.middleware import Middleware, Unauthorized
from serve.routes.common import refusals
from serve.service import Service

PAGE = Path(__file__).parents[1] / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".json": "application/json",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes(service: Service, middleware: Middleware) -> APIRouter:
    """Return the routes of the page. `middleware` knows the valid keys."""
    router = APIRouter(tags=["page"])

    @router.get("/", include_in_schema=False)
    async def index() -> Response:
        return page_file("index.html")

    @router.get("/page/{name:path}", include_in_schema=False)
    async def file(name: str) -> Response:
        return page_file(name)

    @router.get("/login", include_in_schema=False)
    async def login_form() -> Response:
        if not service.settings.keys:
            return Response(status_code=303, headers={"Location": "./"})
        headers = {"Content-Security-Policy": LOGIN_POLICY}
        return Response(login_page(), media_type=TYPES[".html"], headers=headers)

    form = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("key", "next")},
        "required": ["key"],
    }
    body = {"content": {"application/x-www-form-urlencoded": {"schema": form}}, "required": True}

    answers = {**refusals(), 303: {"description": "Redirects to the page and sets the cookie."}}
    answers[401] = {**answers[401], "content": {"text/html": {}}}  # A browser shows the login.

    @router.post(
        "/login",
        status_code=303,
        response_class=Response,
        responses=answers,
        summary="Log in with a key, as the login form does",
        openapi_extra={"requestBody": body},
    )
    async def login(request: Request) -> Response:
        fields = parse_qs((await request.body())[:8192].decode("latin-1"))
        key = fields.get("key", [""])[0].strip()
        query = safe_query(fields.get("next", [""])[0])
        if not middleware.accepts_key(key):
            if "text/html" not in request.headers.get("accept", ""):
                raise Unauthorized
            headers = {"Content-Security-Policy": LOGIN_POLICY, "WWW-Authenticate": "Bearer"}
            body = login_page(query.encode(), again=True)
            return Response(body, 401, media_type=TYPES[".html"], headers=headers)
        place = f"./?{query}" if query else "./"
        answer = Response(status_code=303, headers={"Location": place})
        # SameSite=Lax: another site's page can make the browser send the cookie only by a link, and
        # `check_origin` accepts a link from another site to the page alone.
        secure = request.headers.get("x-forwarded-proto") == "https"
        name, session = middleware.sessions.name(key), middleware.sessions.new(key)
        answer.set_cookie(
            name, session, httponly=True, samesite="lax", secure=secure, max_age=LIFE_S
        )
        return answer

    @router.post(
        "/logout",
        status_code=303,
        response_class=Response,
        responses={**refusals(), 303: {"description": "Redirects to the page's login."}},
        summary="Log out: make the browser forget its session",
    )
    async def logout(request: Request) -> Response:
        answer = Response(status_code=303, headers={"Location": "./"})
        for name in middleware.sessions.accepted(
            request.headers.get("cookie", "").encode("latin-1")
        ):
            answer.delete_cookie(name, httponly=True, samesite="lax")
        return answer

    return router


def page_file(name: str) -> Response:
    """Return a file of the page by its path below serve/page. Raises NotFound."""
    files = _files()
    if name not in files:
        raise NotFound(f"no such file {name[:80]!r} of the page")
    return Response(files[name], media_type=TYPES[Path(name).suffix], headers=HEADERS)


@cache
def _files() -> dict[str, bytes]:
    # The files are read once, by their existing names: a client's name never becomes a path.
    return {
        path.relative_to(PAGE).as_posix(): path.read_bytes()
        for path in PAGE.rglob("*")
        if path.suffix in TYPES and path.name != "login.html"
    }
