"""What can go wrong between us and the API server.

::

    KubeError
    ├── NotFound     404: the object, its namespace or its kind does not exist
    ├── Conflict     409: written from a stale view, owned by another field manager, or already there
    ├── Rejected     any other 4xx: asking again the same way will not help
    └── Transient    429, 5xx, 401, an expired list, no connection, no answer in time: asking again later may help

The text of each is a sentence with the API server's own words in it. After ``Transient`` on a write nobody knows
whether the write happened; whoever asks again must be able to bear both.
"""


class KubeError(Exception):
    """The API server refused, or could not be asked.

    ``status`` is the HTTP status (0 when there was no answer), ``reason`` the server's word for it, such as
    ``Invalid`` or ``AlreadyExists``, and ``details`` the ``details`` of its ``Status`` object.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "", details: dict[str, object] | None = None):
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.details = details or {}


class NotFound(KubeError):  # noqa: N818 - the tree's root says Error; its branches say which
    """There is no such object."""


class Conflict(KubeError):  # noqa: N818
    """The object changed since it was read, has another owner for a field, or exists already."""

    @property
    def exists(self) -> bool:
        """Whether a create failed since an object of that name is there."""
        return self.reason == "AlreadyExists"


class Rejected(KubeError):  # noqa: N818
    """The API server understood and said no: invalid, forbidden, over quota, or denied at admission."""


class Transient(KubeError):  # noqa: N818
    """It may work later. ``retry_after_s`` is the server's own wish, ``None`` when it has none."""

    def __init__(
        self,
        message: str,
        retry_after_s: float | None = None,
        *,
        status: int = 0,
        reason: str = "",
        details: dict[str, object] | None = None,
    ):
        super().__init__(message, status=status, reason=reason, details=details)
        self.retry_after_s = retry_after_s


def error_from(
    status: int, doing: str, document: object, retry_after: str | None = None, fallback: str = ""
) -> KubeError:
    """Return the error for an answer of ``status`` ≥ 400.

    Args:
        status: the HTTP status.
        doing: what was tried, as a phrase: ``get deployments demo/shop``.
        document: the body as JSON, a ``Status`` object when the API server itself wrote it.
        retry_after: the header ``Retry-After``, in seconds.
        fallback: what to say when the body has no message.
    """
    told: dict[str, object] = document if isinstance(document, dict) else {}
    reason = str(told.get("reason") or "")
    raw_details = told.get("details")
    details: dict[str, object] = raw_details if isinstance(raw_details, dict) else {}
    words = str(told.get("message") or fallback.strip()[:500] or reason or "no explanation")
    message = f"{doing}: {words} ({status})"
    if status == 404:
        return NotFound(message, status=status, reason=reason, details=details)
    if status == 409:
        return Conflict(message, status=status, reason=reason, details=details)
    if status in (401, 408, 410, 425, 429) or status >= 500:
        wish = _seconds(retry_after)
        if wish is None:
            wish = _seconds(details.get("retryAfterSeconds"))
        return Transient(message, wish, status=status, reason=reason, details=details)
    return Rejected(message, status=status, reason=reason, details=details)


def _seconds(value: object) -> float | None:
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if 0 < found < 3600 else None
