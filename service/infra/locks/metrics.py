"""What locks tell the operator, by kind: the name up to its first colon."""

from observability import Metrics

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_MAX_KINDS = 50
_OTHER = "_other"


class LockMetrics:
    """Counters and times; the number of kinds is bounded."""

    def __init__(self, metrics: Metrics) -> None:
        labels = ("lock",)
        self.acquired = metrics.counter("locks_acquired", "Locks acquired.", labels)
        self.contended = metrics.counter(
            "locks_contended", "Acquisitions that found the lock held at first.", labels
        )
        self.refused = metrics.counter(
            "locks_refused", "Acquisitions given up: the lock was held throughout.", labels
        )
        self.lost = metrics.counter("locks_lost", "Locks that ended before the work under them.", labels)
        self.renewals_failed = metrics.counter(
            "locks_renewals_failed", "Renewals that Redis did not answer.", labels
        )
        self.wait = metrics.histogram(
            "lock_wait_seconds", "Time to acquire a lock, or to give it up.", labels, _BUCKETS
        )
        self.hold = metrics.histogram("lock_hold_seconds", "Time a lock was held.", labels, _BUCKETS)
        self._kinds: set[str] = set()

    def kind(self, name: str) -> str:
        """The label of a lock's name."""
        kind = name.partition(":")[0]
        if kind not in self._kinds:
            if len(self._kinds) >= _MAX_KINDS:
                return _OTHER
            self._kinds.add(kind)
        return kind
