"""RFC 9457 problems: every error answer of the API, with a stable `code`.

`CODES` is the one list of codes; `docs/api.md` shows it and a test holds the
two together. A `Problem` is raised anywhere and becomes
`application/problem+json` at the edge.
"""

from __future__ import annotations

import math

import msgspec

from wire import messages
from wire.errors import LookoutError

MEDIA_TYPE = "application/problem+json"

# code: (status, title)
CODES: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request can't be read"),
    "bad_multipart": (400, "The multipart form is broken"),
    "host_not_allowed": (403, "This server doesn't answer to that Host"),
    "cross_origin": (403, "Another site may not send this request"),
    "not_found": (404, "There is no such thing here"),
    "method_not_allowed": (405, "That method isn't for this address"),
    "not_acceptable": (406, "None of the accepted media types can be produced"),
    "slow_body": (408, "The request body came too slowly"),
    "conflict": (409, "The state of the job or worker doesn't allow that"),
    "key_in_use": (409, "A request with this Idempotency-Key is still being received"),
    "not_retryable": (409, "Only failed or cancelled jobs can be tried again"),
    "length_required": (411, "The length of the body must be said"),
    "image_too_large": (413, "An image is larger than allowed"),
    "request_too_large": (413, "The request is larger than allowed"),
    "too_many_images": (413, "The request has more images than allowed"),
    "unsupported_media_type": (415, "The body is of a type that isn't taken"),
    "invalid_parameter": (422, "A parameter has a value that isn't allowed"),
    "no_image": (422, "The request has no image"),
    "unknown_field": (422, "The form has a field that isn't known"),
    "idempotency_mismatch": (422, "The Idempotency-Key was used with other images"),
    "url_invalid": (422, "The URL can't be used"),
    "url_refused": (422, "The URL leads to an address that isn't allowed"),
    "url_not_an_image": (422, "The URL doesn't lead to an image"),
    "url_too_large": (422, "The URL leads to more bytes than allowed"),
    "model_refused": (422, "The model can't be served"),
    "weights_not_allowed": (422, "Weights can't be named like that over HTTP"),
    "no_thumbnail": (422, "No thumbnail can be made of this image"),
    "queue_full": (429, "The queue is full"),
    "internal_error": (500, "The server made a mistake"),
    "image_corrupt": (500, "The master's disk has damaged the image"),
    "image_lost": (500, "The master's disk has lost the image"),
    "url_unreachable": (502, "The URL couldn't be fetched"),
    "core_unavailable": (503, "The scheduler can't be reached"),
    "starting": (503, "The scheduler is starting"),
    "draining": (503, "The server is shutting down"),
    "not_ready": (503, "No worker is ready"),
    "busy": (503, "This web process is at one of its bounds"),
    "storage_busy": (503, "The master's disk is behind"),
    "storage_failed": (503, "The master's disk can't be written"),
    "url_timeout": (504, "The URL took too long"),
    "storage_full": (507, "The disk of the master is full"),
}

RETRY_AFTER_S = {
    "core_unavailable": 1.0,
    "starting": 1.0,
    "busy": 1.0,
    "queue_full": 1.0,
    "storage_busy": 1.0,
    "storage_failed": 30.0,
    "draining": 5.0,
    "not_ready": 2.0,
    "key_in_use": 1.0,
}


class Problem(LookoutError):
    """An answer that isn't 2xx. `code` is a key of `CODES`; `detail` says what to do next."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after_s: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status, self.title = CODES[code]
        self.retry_after_s = RETRY_AFTER_S.get(code) if retry_after_s is None else retry_after_s
        self.extra_headers = headers

    def body(self) -> bytes:
        """Build the `application/problem+json` body."""
        return msgspec.json.encode(
            {
                "type": f"urn:lookout:problem:{self.code}",
                "title": self.title,
                "status": self.status,
                "code": self.code,
                "detail": self.detail,
            }
        )

    def headers(self) -> list[tuple[str, str]]:
        """Build the headers, `Retry-After` in whole seconds among them."""
        headers = [("Content-Type", MEDIA_TYPE), ("Cache-Control", "no-store")]
        if self.retry_after_s is not None:
            headers.append(("Retry-After", str(max(1, math.ceil(self.retry_after_s)))))
        return [*headers, *self.extra_headers]


def from_refused(refused: messages.Refused) -> Problem:
    """Translate the core's refusal; a code that isn't ours is a 409 with the core's words."""
    known = refused.code if refused.code in CODES else "conflict"
    return Problem(known, refused.message, retry_after_s=refused.retry_after_s)
