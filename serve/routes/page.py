"""Serves the browser page at `/` and, if keys are set, its login.

The page loads nothing from other sites.
"""

from functools import cache
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serve.errors import NotFound
from serve.middleware import COOKIE, LOGIN, LOGIN_AGAIN, LOGIN_POLICY, Middleware, Unauthorized
from serve.routes.common import refusals
from serve.service import Service

PAGE = Path(__file__).parents[1] / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
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

    @router.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        return page_file(name)

    @router.get("/login", include_in_schema=False)
    async def login_page() -> Response:
        if not service.settings.keys:
            return Response(status_code=303, headers={"Location": "./"})
        headers = {"Content-Security-Policy": LOGIN_POLICY}
        return Response(LOGIN, media_type=TYPES[".html"], headers=headers)

    form = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
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
        fields = parse_qs((await request.body())[:4096].decode("latin-1"))
        key = fields.get("key", [""])[0].strip()
        if not middleware.accepts_key(key):
            if "text/html" not in request.headers.get("accept", ""):
                raise Unauthorized
            headers = {"Content-Security-Policy": LOGIN_POLICY, "WWW-Authenticate": "Bearer"}
            return Response(LOGIN_AGAIN, 401, media_type=TYPES[".html"], headers=headers)
        answer = Response(status_code=303, headers={"Location": "./"})
        # SameSite=Lax: another site's page can make the browser send the cookie only by a link, and
        # `check_origin` accepts a link from another site to the page alone.
        secure = request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(
            COOKIE, key, httponly=True, samesite="lax", secure=secure, max_age=30 * 86_400
        )
        return answer

    return router


def page_file(name: str) -> Response:
    """Return a file of the page by its name. Raises NotFound."""
    files = _files()
    if name not in files:
        raise NotFound(f"no such file {name[:80]!r}; the files are {', '.join(sorted(files))}")
    return Response(files[name], media_type=TYPES[Path(name).suffix], headers=HEADERS)


@cache
def _files() -> dict[str, bytes]:
    # The files are read once, by their existing names: a client's name never becomes a path.
    return {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in TYPES}
