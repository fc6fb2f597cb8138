"""The progress of one projection in this process: plain numbers that its runner keeps and the catalogue shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, final

from eventcore.catalogue.metrics import ProjectionState

_MAX_SIGHTINGS: Final = 1024
# The estimate uses the pace of the last 30 seconds: less is noise, more is out of date.
_SAMPLE_EVERY: Final = 1.0
_SAMPLES: Final = 30


@final
class ProjectionProgress:
    """What a runner knows. Only the event loop of the runner writes it; any thread may read it. ``None`` is unknown.

    Attributes:
        state: ``paused`` while another runner leads or the store is unavailable.
        leader: whether this runner holds the lease.
        position: of the last event that was applied, or scanned and filtered out.
        checkpoint: the last position that the store keeps.
        head: the head position when the store was last asked; unknown if that failed.
        beat: when the runner last did something, in seconds of ``clock``.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.state: ProjectionState = "paused"
        self.leader = False
        self.position: int | None = None
        self.checkpoint: int | None = None
        self.head: int | None = None
        self.beat: float | None = None
        # (head position, when it was first seen) of heads that are not yet applied
        self._sightings: deque[tuple[int, float]] = deque()
        # (time, position, head position)
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=_SAMPLES)

    def lead(self, position: int) -> None:
        """Note that this runner has the lease and starts at ``position``."""
        self.leader = True
        self.position = self.checkpoint = position
        self._forget()
        self.tick()

    def rest(self, state: ProjectionState) -> None:
        """Note that this runner does not have the lease (any more): how far another runner is, is unknown here."""
        self.state = state
        self.leader = False
        self.position = self.checkpoint = None
        self._forget()
        if state in ("failed", "stopped"):
            self.beat = None

    def tick(self) -> None:
        """Note that the runner is alive."""
        self.beat = self._clock()

    def saw(self, head: int) -> None:
        """Note that the store has events up to the position ``head``."""
        now = self.beat = self._clock()
        sightings = self._sightings
        if self.position is not None and head > self.position and (not sightings or head > sightings[-1][0]):
            if len(sightings) >= _MAX_SIGHTINGS:
                # Merge each two neighbours to the later head with the earlier time, so that ages are never too low.
                kept = [(sightings[at + 1][0], sightings[at][1]) for at in range(0, _MAX_SIGHTINGS - 1, 2)]
                sightings.clear()
                sightings.extend(kept)
            sightings.append((head, now))
        self.head = head

    def reached(self, position: int) -> None:
        """Note that everything up to ``position`` is applied."""
        now = self.beat = self._clock()
        self.position = position
        sightings = self._sightings
        while sightings and sightings[0][0] <= position:
            sightings.popleft()
        if self.head is not None and (not self._samples or now - self._samples[-1][0] >= _SAMPLE_EVERY):
            self._samples.append((now, position, self.head))

    def lag(self) -> int | None:
        """How many events are not yet applied."""
        position, head = self.position, self.head
        return None if position is None or head is None else max(0, head - position)

    def lag_time(self) -> float | None:
        """Seconds since this process first saw the oldest event that is not yet applied; 0 when caught up.

        The time of recording does not count. So a replay of old events starts at 0 and shows how long it has been running, and
        clocks of other machines do not matter.
        """
        if self.lag() is None:
            return None
        try:
            return max(0.0, self._clock() - self._sightings[0][1])
        except IndexError:
            return 0.0

    def eta(self) -> float | None:
        """Seconds until it has caught up at the pace of the last 30 seconds; unknown when it does not come closer."""
        lag = self.lag()
        if not lag:
            return None if lag is None else 0.0
        try:
            (then, position, head), (now, later, ahead) = self._samples[0], self._samples[-1]
        except IndexError:
            return None
        gained = (later - position) - (ahead - head)
        return lag * (now - then) / gained if gained > 0 and now > then else None

    def heartbeat_age(self) -> float | None:
        """Seconds since the runner last did something."""
        return None if self.beat is None else max(0.0, self._clock() - self.beat)

    def _forget(self) -> None:
        self.head = None
        self._sightings.clear()
        self._samples.clear()
