"""Says it when a backend expects another certificate than clients are shown; once per change.

Either side may be the one that changed: a check saw another leaf, a renewed file was read, a reload
declared another hash. So all of it is compared whenever any of it may have changed, and what was
said last is remembered with the backend. Whether its calls are refused is not decided here
(``balance/same_certificate.py``).
"""

from weakref import WeakKeyDictionary

import structlog

from sstplb.balance.backend import Backend
from sstplb.balance.same_certificate import accepted, mismatch_sentence
from sstplb.config.schema import MismatchPolicy, Standing
from sstplb.control.plan import PooledChecks

log = structlog.get_logger()

_Said = tuple[bytes, MismatchPolicy, tuple[tuple[str, tuple[bytes, ...]], ...]]
"""What a backend expects, what happens to its calls, and what clients are shown by listener."""


class Mismatches:
    """What was said of each backend."""

    def __init__(self) -> None:
        self._said: WeakKeyDictionary[Backend, _Said] = WeakKeyDictionary()

    def look(self, checks: PooledChecks, backend: Backend) -> None:
        """Compare what a backend expects with what its clients are shown; say what is news."""
        policy = checks.config.tls.same_certificate
        theirs = accepted(checks.mode, backend, checks.ours).sha256
        if policy is MismatchPolicy.OFF or backend.standing is Standing.OFF or theirs is None:
            self._said.pop(backend, None)
            return
        shut_out = checks.shut_out(backend)
        if not shut_out:
            if self._said.pop(backend, None) is not None:
                log.info(
                    "certificate_match",
                    message=f"{backend.name} expects a certificate that clients are shown again",
                    pool=backend.pool,
                    backend=backend.name,
                )
            return
        found = theirs, policy, tuple(shut_out.items())
        if self._said.get(backend) == found:
            return
        self._said[backend] = found
        whose = "" if len(shut_out) == len(checks.shown) else f" from {', '.join(shut_out)}"
        is_refused = policy is MismatchPolicy.REFUSE
        used = f"it gets no calls{whose}" if is_refused else f"calls{whose} go there all the same"
        ours = tuple(dict.fromkeys(sha256 for shown in shut_out.values() for sha256 in shown))
        log.warning(
            "certificate_mismatch",
            message=f"{mismatch_sentence(backend.name, theirs, *ours)} ({used})",
            pool=backend.pool,
            backend=backend.name,
            expected_sha256=theirs.hex(),
            served_sha256=", ".join(sha256.hex() for sha256 in ours),
        )
