"""How far one projection has come in this process: plain numbers that its runner writes and the catalogue's callbacks read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, final

from eventcore.catalogue.metrics import ProjectionState

_MAX_SIGHTINGS: Final = 1024
# `eta` looks back over at most 30 samples, one a second. A longer window would react too slowly to a change of speed.
_SAMPLE_INTERVAL: Final = 1.0
_MAX_SAMPLES: Final = 30


@final
class ProjectionProgress:
    """The progress of one runner. ``None`` means unknown.

    Only the runner's event loop writes it. Other threads may read it without a lock: every attribute is assigned as a whole,
    and a method that reads two of them tolerates that they are a moment apart.

    Attributes:
        state: ``paused`` while another runner leads or the store cannot be reached.
        leader: whether this runner holds the lease.
        position: the last event that was applied, or that the filter left out.
        checkpoint: the last position that was committed to the store.
        head: the store's head position when it was last read; ``None`` after a read has failed.
        last_active: when the runner last did something, by ``clock``.
        problem: why the runner does not get on, or why it has failed; empty while it does.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.state: ProjectionState = "paused"
        self.leader = False
        self.position: int | None = None
        self.checkpoint: int | None = None
        self.head: int | None = None
        self.last_active: float | None = None
        self.problem = ""
        # (head position, when it was first seen), for heads that are not applied yet.
        self._sightings: deque[tuple[int, float]] = deque()
        # (time, position, head position)
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=_MAX_SAMPLES)

    def start_leading(self, position: int) -> None:
        """This runner has got the lease and begins behind ``position``."""
        self.leader = True
        self.position = self.checkpoint = position
        self._forget_head()
        self.tick()

    def stand_by(self, state: ProjectionState) -> None:
        """This runner does not hold the lease (any more), so it does not know how far the projection is."""
        self.state = state
        self.leader = False
        self.position = self.checkpoint = None
        self._forget_head()
        if state in ("failed", "stopped"):
            self.last_active = None

    def tick(self) -> None:
        """Note that the runner is alive."""
        self.last_active = self._clock()

    def observe_head(self, head: int) -> None:
        """The store's head position is ``head``."""
        now = self.last_active = self._clock()
        sightings = self._sightings
        if self.position is not None and head > self.position and (not sightings or head > sightings[-1][0]):
            if len(sightings) >= _MAX_SIGHTINGS:
                # Halve the list: of two neighbours keep the later head with the earlier time. `lag_time` can then only be too
                # high, never too low.
                kept = [(sightings[at + 1][0], sightings[at][1]) for at in range(0, _MAX_SIGHTINGS - 1, 2)]
                sightings.clear()
                sightings.extend(kept)
            sightings.append((head, now))
        self.head = head

    def advance(self, position: int) -> None:
        """Every event up to ``position`` is applied."""
        now = self.last_active = self._clock()
        self.position = position
        self.problem = ""
        sightings = self._sightings
        while sightings and sightings[0][0] <= position:
            sightings.popleft()
        if self.head is not None and (not self._samples or now - self._samples[-1][0] >= _SAMPLE_INTERVAL):
            self._samples.append((now, position, self.head))

    def lag(self) -> int | None:
        """The number of events that are not applied yet."""
        position, head = self.position, self.head
        return None if position is None or head is None else max(0, head - position)

    def lag_time(self) -> float | None:
        """Seconds for which this process has known of the oldest event that is not applied; 0 when all are applied.

        The time counts from when this process first saw the event, not from when it was recorded. So a replay of old events
        begins at 0 and shows how long it has been running, and the clocks of other machines do not matter.
        """
        if self.lag() is None:
            return None
        try:
            return max(0.0, self._clock() - self._sightings[0][1])
        except IndexError:
            return 0.0

    def eta(self) -> float | None:
        """Seconds until everything is applied, at the speed of the last half minute; ``None`` when the lag does not shrink."""
        lag = self.lag()
        if not lag:
            return None if lag is None else 0.0
        try:
            (first_time, first_position, first_head), (last_time, last_position, last_head) = (
                self._samples[0],
                self._samples[-1],
            )
        except IndexError:
            return None
        gained = (last_position - first_position) - (last_head - first_head)
        return lag * (last_time - first_time) / gained if gained > 0 and last_time > first_time else None

    def heartbeat_age(self) -> float | None:
        """Seconds since the runner last did something."""
        last_active = self.last_active
        return None if last_active is None else max(0.0, self._clock() - last_active)

    def _forget_head(self) -> None:
        self.head = None
        self._sightings.clear()
        self._samples.clear()
