"""Is a backend well? What checks say, what calls say, and when that changes our mind.

Two facts are kept apart:

**Up or down** is the verdict of the checks. The first verdict decides alone: nobody wants to wait
for three checks after a start to learn what the first one said. Afterwards ``rise`` good answers
in a row bring a backend up and ``fall`` bad ones take it down, so that one lost packet does not
flap. Two products judge otherwise, and can be imitated:

- *Kemp LoadMaster* retries only when nothing came back. A wrong answer is an answer: down at once
  (``wrong_answer_is_final``; the probe says which it was with ``Verdict.final``).
- *F5 BIG-IP* counts seconds instead of answers: down when no good one came for ``down_after``, up
  at the first good one. Time passes between checks too, so this machine says when it wants to be
  woken (``wake_at``, ``wake``).

**Set aside** is what calls say. A backend can answer every check and still fail calls, because it
is out of ports or expects another certificate. The mechanism is a bucket that leaks: each failed
call puts in one, each good one takes out the ``good_calls_per_failure``-th part, and when there are
``failures`` in it the backend gets no new calls for ``back_off`` seconds. So a backend that fails
everything is found after ``failures`` calls, and one that fails more than one call in four (with
``good_calls_per_failure: 3``) sooner or later, however many go well in between; below that the
bucket runs dry. If the first call after the back-off fails as well, it is set aside for twice as
long, up to ``back_off_max``; one that succeeds wipes the slate. What calls that began earlier
report while it is set aside changes nothing: ten calls that fail together are one bad moment.

**A client must not be able to put servers aside.** What comes before the 200 (no connection, no
answer, an HTTP error because all ports are taken) only the backend can bring about. What comes
after (a refused binding, a NAK, a negotiation that times out) a client can, on purpose or broken.
So of the failures that count, at most ``client_failures_max`` are one client network's.

How many backends of a pool may really be kept away at one time is the pool's to say (``pool.py``).

Each change of mind is a ``Flip``, to be logged once; so is another reason to hold a backend for
down, for what took it down may be mended and something else wrong by now. Time is an argument
(seconds, monotonic); this module neither probes nor waits.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from sstplb.config.schema import Check, CheckPreset, Passive

REASONS_TOLD_MAX = 8
"""Of one time down: each reason is told once, however they alternate."""
ACCUSERS_MAX = 256
"""How many failures are remembered with their client; older ones are forgotten."""

PRESETS: Mapping[CheckPreset, Mapping[str, object]] = MappingProxyType(
    {
        # 1 check + 2 retries; back at the first good answer (an assumption); any 2xx is good
        # whatever status the administrator asked for.
        CheckPreset.KEMP: MappingProxyType(
            {
                "interval": 9.0,
                "timeout": 4.0,
                "rise": 1,
                "fall": 3,
                "wrong_answer_is_final": True,
                "expect_status": ("401", "200-299"),
            }
        ),
        # F5's "time-out" is how long the server may go without a good answer, not how long one
        # check may take: a check is over when the next is due.
        CheckPreset.F5: MappingProxyType(
            {"interval": 5.0, "timeout": 5.0, "rise": 1, "down_after": 16.0}
        ),
    }
)
"""What each preset changes in a ``Check``: those products' defaults."""


def apply_preset(check: Check) -> Check:
    """Return ``check`` with its preset filled in; whatever the operator set himself wins.

    Without a preset it is returned as it is; doing it twice changes nothing.
    """
    if check.preset is None:
        return check
    preset = PRESETS[check.preset]
    update = {name: preset[name] for name in preset if name not in check.model_fields_set}
    return check.model_copy(update=update)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one check."""

    good: bool
    final: bool = False
    """Of a bad one: something wrong came back (a status, a refusal), rather than silence."""
    reason: str = ""
    """In words, for the log: ``expected 401, got 503``."""
    transcript: str = ""
    """What was sent and what came back, for ``sstplb probe``."""


class FlipKind(StrEnum):
    """How our mind changed."""

    UP = "up"
    DOWN = "down"
    STILL_DOWN = "still_down"
    """For another reason."""
    SET_ASIDE = "set_aside"
    BACK = "back"


@dataclass(frozen=True, slots=True)
class Flip:
    """A change of mind, worth one log line."""

    kind: FlipKind
    reason: str
    """In words, with what decided: ``timed out (3 bad checks in a row)``."""


class Health:
    """What checks and calls have said about one backend."""

    is_up: bool
    is_checked: bool
    """Whether any check has spoken yet."""
    reason: str
    """Why it is up or down, in words, as the last check has it."""
    since: float | None
    """When it became so; None for "from the start"."""
    last_verdict: Verdict | None
    set_aside_until: float
    """Until when calls are kept away (monotonic seconds); in the past: they are not."""
    set_aside_reason: str
    """Why, in words; empty: nothing speaks against it."""
    checks_total: Counter[bool]
    """Verdicts since the start, good and bad; nothing resets them."""
    flips_total: Counter[FlipKind]
    _last_good_at: float | None
    _told: list[str]
    """The reasons of checks why it is down, each told once."""
    _down_reason: str
    """Why it went down, and what decided."""
    _bucket: int
    """Failed calls not yet made up for, each counting ``good_calls_per_failure``."""
    _failed: int
    _judged: int
    """Calls that failed, and all that were judged, since the bucket was last empty."""
    _accusers: deque[bytes]
    """The client networks of the latest failures that clients could bring about."""
    _back_off_s: float

    def __init__(self, check: Check, passive: Passive) -> None:
        self._accusers = deque(maxlen=ACCUSERS_MAX)
        self.checks_total, self.flips_total = Counter(), Counter()
        self.reconfigure(check, passive)
        self.reset(None)

    def reconfigure(self, check: Check, passive: Passive) -> None:
        """Judge by other rules from now on; what is known stays. ``check`` has its preset."""
        self._check = check
        self._passive = passive

    def reset(self, now: float | None) -> None:
        """Forget everything said so far, as when the name now leads to another machine."""
        self.is_up = self._check.initially_up
        self.is_checked = False
        self.reason = "not checked yet"
        self.since = now
        self.last_verdict = None
        self._good_in_row = self._bad_in_row = 0
        self._last_good_at = None
        self._told, self._down_reason = [], ""
        self._wipe_slate()

    def is_known_to_be_up(self, now: float) -> None:
        """Take the word of who checked before us: bad checks must be as many in a row as ever."""
        self.is_up = self.is_checked = True
        self.reason, self.since = "it was up before", now

    # --- what checks say ------------------------------------------------------------------

    def report(self, verdict: Verdict, now: float) -> Flip | None:
        """Take the result of a check; return the flip it caused, if any."""
        first, self.is_checked = not self.is_checked, True
        self.last_verdict = verdict
        self.checks_total[verdict.good] += 1
        if verdict.good:
            self._good_in_row, self._bad_in_row = self._good_in_row + 1, 0
            self._last_good_at = now
            decided_by = self._why_up(first)
        else:
            self._good_in_row, self._bad_in_row = 0, self._bad_in_row + 1
            decided_by = self._why_down(first, verdict, now)
        if decided_by is not None:
            return self._flip(verdict, decided_by, now)
        return None if self.is_up else self._still_down(verdict)

    @property
    def wake_at(self) -> float | None:
        """When ``wake`` should be called if no verdict comes before; None: not needed."""
        if self._check.down_after is None or not (self.is_up and self._bad_in_row):
            return None
        return None if self._last_good_at is None else self._last_good_at + self._check.down_after

    def wake(self, now: float) -> Flip | None:
        """Take it down when no good answer came for ``down_after``; return the flip, if any.

        Only after at least one bad answer: the silence of a late prober is not the backend's.
        """
        due = self.wake_at
        if due is None or now < due or self.last_verdict is None:
            return None
        return self._flip(self.last_verdict, self._too_long(), now)

    def _why_up(self, first: bool) -> str | None:
        """Return what made a good verdict decisive, or None when it was not."""
        if first:
            return "first check"
        if self.is_up or self._good_in_row < self._check.rise:
            return None
        return _in_a_row(self._good_in_row, "good")

    def _why_down(self, first: bool, verdict: Verdict, now: float) -> str | None:
        """Return what made a bad verdict decisive, or None when it was not."""
        if first:
            return "first check"
        if not self.is_up:
            return None
        if verdict.final and self._check.wrong_answer_is_final:
            return "a wrong answer is final"
        if self._check.down_after is not None:
            due = self.wake_at
            return self._too_long() if due is not None and now >= due else None
        if self._bad_in_row < self._check.fall:
            return None
        return _in_a_row(self._bad_in_row, "bad")

    def _too_long(self) -> str:
        return f"no good answer for {self._check.down_after:g} s"

    def _flip(self, verdict: Verdict, decided_by: str, now: float) -> Flip:
        reason = f"{verdict.reason or 'no reason given'} ({decided_by})"
        self.is_up, self.reason, self.since = verdict.good, reason, now
        if self.is_up:
            self._told, self._down_reason = [], ""
            self._wipe_slate()
            return self._counted(FlipKind.UP, reason)
        self._told, self._down_reason = [verdict.reason], reason
        return self._counted(FlipKind.DOWN, reason)

    def _still_down(self, verdict: Verdict) -> Flip | None:
        """Take what a check says that leaves it down; return a flip if its reason is a new one."""
        if verdict.good:
            so_far = _in_a_row(self._good_in_row, "good")
            self.reason = f"{verdict.reason} ({so_far}, {self._check.rise} are needed)"
            return None
        is_as_first = verdict.reason in self._told[:1]
        self.reason = self._down_reason if is_as_first else verdict.reason
        if verdict.reason in self._told or len(self._told) >= REASONS_TOLD_MAX:
            return None
        self._told.append(verdict.reason)
        return self._counted(FlipKind.STILL_DOWN, verdict.reason)

    # --- what calls say -------------------------------------------------------------------

    def is_set_aside(self, now: float) -> bool:
        """Whether failed calls keep new ones away for now."""
        return now < self.set_aside_until

    def call_failed(self, reason: str, now: float, client: bytes | None = None) -> Flip | None:
        """Note a call that failed on this backend's side; return the flip it caused, if any.

        ``client``: the network of a client that could have brought it about; None: none could.
        """
        if not self._passive.failures or self.is_set_aside(now) or self._is_biased(client):
            return None
        if client is not None:
            self._accusers.append(client)
        self._failed, self._judged = self._failed + 1, self._judged + 1
        self._bucket += self._passive.good_calls_per_failure
        full = self._passive.failures * self._passive.good_calls_per_failure
        if not self._back_off_s and self._bucket < full:
            return None
        self._bucket = min(self._bucket, full)
        wanted = 2 * self._back_off_s or self._passive.back_off
        self._back_off_s = min(wanted, self._passive.back_off_max)
        self.set_aside_until = now + self._back_off_s
        self.set_aside_reason = (
            f"{reason} ({self._failed_in_words()}; no new calls for {self._back_off_s:g} s)"
        )
        return self._counted(FlipKind.SET_ASIDE, self.set_aside_reason)

    def call_succeeded(self, now: float) -> Flip | None:
        """Note a call that went well. Returns a flip if it brings the backend back.

        Say this when a call has proved its worth. Where refused bindings count as failures that
        is not the hand-over but the binding, or each 200 would make up for the refusal before it.
        """
        if self.is_set_aside(now):
            return None
        was_aside = self._back_off_s > 0
        self._bucket -= 1
        self._judged += 1
        if was_aside or self._bucket <= 0:
            self._wipe_slate()
        return self._counted(FlipKind.BACK, "a call succeeded again") if was_aside else None

    def bring_back(self) -> Flip | None:
        """Forget what calls have said, because the operator knows better."""
        was_aside = self._back_off_s > 0
        self._wipe_slate()
        return self._counted(FlipKind.BACK, "the operator brought it back") if was_aside else None

    @property
    def set_aside_total(self) -> int:
        """How often calls have put it aside."""
        return self.flips_total[FlipKind.SET_ASIDE]

    def _counted(self, kind: FlipKind, reason: str) -> Flip:
        self.flips_total[kind] += 1
        return Flip(kind, reason)

    def _is_biased(self, client: bytes | None) -> bool:
        """Whether a client has had its say: as many failures are its own as may count."""
        return client is not None and (
            self._accusers.count(client) >= self._passive.client_failures_max
        )

    def _failed_in_words(self) -> str:
        if self._failed == self._judged:
            return f"{self._failed} call{'s' if self._failed > 1 else ''} failed in a row"
        return f"{self._failed} of {self._judged} calls failed"

    def _wipe_slate(self) -> None:
        self.set_aside_until = 0.0
        self.set_aside_reason = ""
        self._bucket = self._failed = self._judged = 0
        self._accusers.clear()
        self._back_off_s = 0.0


def _in_a_row(count: int, kind: str) -> str:
    return f"1 {kind} check" if count == 1 else f"{count} {kind} checks in a row"
