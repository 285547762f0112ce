"""What a store's client tells of a failure, whichever client it is: throttled, refused, to be asked again when.

Clients have classes of their own (botocore's ClientError, gcsfs's HttpError, aiohttp's ClientResponseError, Azure's
HttpResponseError), which are not imported here: what they carry is looked for by name, along the chain of causes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

# Of HTTP, RFC 9110 and 6585; and S3's, GCS's and Azure's names for "slow down".
_THROTTLED = {429, 503}
_THROTTLED_CODES = {
    "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
    "RequestThrottled", "ServerBusy",
}  # fmt: skip
_DENIED = {401, 403}
_DENIED_NAMES = {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "RefreshError"}


def throttled(error: BaseException) -> bool:
    """Say whether a store asked for fewer requests."""
    return any(_status(cause) in _THROTTLED or _code(cause) in _THROTTLED_CODES for cause in _causes(error))


def denied(error: BaseException) -> bool:
    """Say whether a store knows us not, or lets us not: only a renewal of credentials can help."""
    return any(
        isinstance(cause, PermissionError) or _status(cause) in _DENIED or type(cause).__name__ in _DENIED_NAMES
        for cause in _causes(error)
    )


def retry_after(error: BaseException) -> float | None:
    """Seconds after which a store wants to be asked again (Retry-After, RFC 9110, 10.2.3); None where it says none."""
    for cause in _causes(error):
        for name, value in _headers(cause).items():
            if str(name).lower() == "retry-after":
                return _seconds(str(value))
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _answer(error: BaseException) -> Mapping[str, Any]:
    """What botocore keeps of an answer."""
    response = getattr(error, "response", None)
    return response if isinstance(response, Mapping) else {}


def _status(error: BaseException) -> int | None:
    told = _answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    for name in ("status", "status_code", "code"):
        if isinstance(told, int):
            break
        told = getattr(error, name, None)
    return told if isinstance(told, int) else None


def _code(error: BaseException) -> str:
    told = _answer(error).get("Error", {}).get("Code") or getattr(error, "error_code", "")
    return str(told)


def _headers(error: BaseException) -> Mapping[str, Any]:
    told = _answer(error).get("ResponseMetadata", {}).get("HTTPHeaders")
    for headers in (told, getattr(error, "headers", None), getattr(getattr(error, "response", None), "headers", None)):
        if isinstance(headers, Mapping):
            return headers
    return {}


def _seconds(value: str) -> float | None:
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
