"""What an answer means for the request, and how long to wait before the next try. Pure.

Retrying is safe because every submission carries an `Idempotency-Key`: the
server answers a repeated key with the jobs of the first request.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from enum import Enum

_DOUBLINGS_MAX = 32


class Verdict(Enum):
    """What to do with an answer."""

    TAKE = "it is what was asked for"
    AGAIN = "the server is away or busy: try again, as long as the call has patience"
    QUEUE = "the server is well and full: come back when it says"
    FEW = "trying again may help; a few times"
    IMAGE = "this image will not be taken; others may be"
    SERVER = "no image will be taken here"


_BY_STATUS = {
    408: Verdict.AGAIN,
    429: Verdict.QUEUE,
    500: Verdict.FEW,
    502: Verdict.AGAIN,
    503: Verdict.AGAIN,
    504: Verdict.AGAIN,
    507: Verdict.AGAIN,
    401: Verdict.SERVER,
    403: Verdict.SERVER,
    404: Verdict.SERVER,
    405: Verdict.SERVER,
    406: Verdict.SERVER,
}
# Said by Lookout itself, and more exact than the status. 502 and 504 are here about the image's
# own address; without these codes they come from a proxy whose server is away.
_BY_CODE = {
    "key_in_use": Verdict.AGAIN,
    "url_unreachable": Verdict.FEW,
    "url_timeout": Verdict.FEW,
}
# Of these a master is back within seconds, and it isn't busy: nothing is won by sparing it.
AWAY_CODES = frozenset({"core_unavailable", "starting"})


def judge(status: int, code: str) -> Verdict:
    """Verdict on an answer with this status and the `code` of its problem, if it has one."""
    if 200 <= status < 300:
        return Verdict.TAKE
    if (known := _BY_CODE.get(code) or _BY_STATUS.get(status)) is not None:
        return known
    return Verdict.IMAGE if 400 <= status < 500 else Verdict.SERVER


@dataclass(slots=True)
class Backoff:
    """Exponential back-off with full jitter: uniform between zero and a doubling bound.

    Full jitter spreads a herd that lost the same server better than a jitter around the bound
    does: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    base_s: float
    cap_s: float
    failures: int = 0

    def next_delay_s(
        self, rng: random.Random, retry_after_s: float = 0.0, cap_s: float = math.inf
    ) -> float:
        """Count a failure; the wait before the next try, never less than the server asked for.

        The jitter comes on top of `Retry-After`, so that those who were told the same second
        don't come back together. `cap_s` bounds this one wait further.
        """
        doubled_s = self.base_s * 2 ** min(self.failures, _DOUBLINGS_MAX)
        bound_s = min(self.cap_s, cap_s, doubled_s)
        self.failures += 1
        return retry_after_s + rng.uniform(0.0, bound_s)
