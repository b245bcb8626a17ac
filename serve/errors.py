"""Exceptions that the service turns into HTTP error responses, one class for each status.

Each API (Open Inference Protocol, OpenAI) has its own format for these errors.

400 invalid request · 401 no valid key · 403 request from another site's page · 404 no such model ·
408 timeout · 413 too large · 415 unknown picture format · 422 body does not match its schema · 429
too busy · 503 not ready. 500 is an error of the service itself.
"""


class ApiError(Exception):
    """An error response: HTTP status, machine-readable code, and one line that says what to do."""

    status = 400
    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None):
        super().__init__(message)
        self.message, self.param = message, param
        self.headers: dict[str, str] = {}


class BadRequest(ApiError):
    """A value in the request is invalid."""


class NotFound(ApiError):
    """The model, version or function does not exist."""

    status, code = 404, "not_found"


class TooLarge(ApiError):
    """The request asks for more bytes, pixels or images than one request may use."""

    status, code = 413, "too_large"


class NotAPicture(ApiError):
    """The file is not a readable PNG, JPEG or WebP."""

    status, code = 415, "unsupported_image"


class Busy(ApiError):
    """The service has too many requests; the client should try again later."""

    status, code = 429, "busy"

    def __init__(self, message: str, *, retry_after_s: int = 1):
        super().__init__(f"too busy: {message}; try again in {retry_after_s} s")
        self.headers = {"Retry-After": str(retry_after_s)}


class NotReady(ApiError):
    """The service, or a model, is not ready."""

    status, code = 503, "not_ready"


class Fault(ApiError):
    """An internal error. The client receives only a request id to quote; the service log has the
    details.
    """

    status, code = 500, "internal_error"

    def __init__(self, request_id: str):
        super().__init__(f"a fault of the service; its log has request {request_id}")
