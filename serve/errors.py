"""Defines the exceptions that the service turns into HTTP error responses.

Each class has one status. Each API (Open Inference Protocol, OpenAI) has its own format for the
body of an error. The statuses are:

    400 invalid request         401 no valid key      403 request from another site's page
    404 no such model           408 timeout           413 too large
    415 unknown picture format  422 schema mismatch   429 too busy
    500 error of the service    503 not ready
"""


class ApiError(Exception):
    """An error response.

    Args:
        message: one line that names the invalid value and a valid choice.
        param: the field of the request that is invalid; None if no single field is.
    """

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


class InternalError(ApiError):
    """An internal error. The client receives only the request id; the service's log has the
    traceback.
    """

    status, code = 500, "internal_error"

    def __init__(self, request_id: str):
        super().__init__(f"internal error; the service's log has details of request {request_id}")
