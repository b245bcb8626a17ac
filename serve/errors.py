"""What a client is told, by status: every refusal is one of these, and each convention words it
in its own shape.

400 a request that makes no sense · 401 no key · 403 another site's page · 404 no such model ·
408 too slow · 413 too large · 415 not a picture of a known format · 422 a body that does not fit
its schema · 429 too busy · 503 not ready. 500 is a fault of ours.
"""


class ApiError(Exception):
    """A refusal: `status`, a machine's word for it, and a person's line that says what to do."""

    status = 400
    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None):
        super().__init__(message)
        self.message, self.param = message, param
        self.headers: dict[str, str] = {}


class BadRequest(ApiError):
    """A value that makes no sense."""


class NotFound(ApiError):
    """No such model, version or function."""

    status, code = 404, "not_found"


class TooLarge(ApiError):
    """More bytes, pixels or images than one request may ask for."""

    status, code = 413, "too_large"


class NotAPicture(ApiError):
    """Not a PNG, JPEG or WebP that can be read."""

    status, code = 415, "unsupported_image"


class Busy(ApiError):
    """Come back later."""

    status, code = 429, "busy"

    def __init__(self, message: str, *, retry_after_s: int = 1):
        super().__init__(f"too busy: {message}; try again in {retry_after_s} s")
        self.headers = {"Retry-After": str(retry_after_s)}


class NotReady(ApiError):
    """The service, or a model, is not ready."""

    status, code = 503, "not_ready"


class Fault(ApiError):
    """A fault of ours: the client is told nothing of it but the id to ask about; our log has the
    rest.
    """

    status, code = 500, "internal_error"

    def __init__(self, request_id: str):
        super().__init__(f"a fault of the service; its log has request {request_id}")
