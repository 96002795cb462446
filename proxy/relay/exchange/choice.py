# Compiled by mypyc: see setup.py.
"""Which backend gets a request: by the balancer, or the one that has the job it is about.

A job of another worker, or of an earlier run, is not in this worker's table. A request about it goes to any
backend; if that one does not have it (404), it is sent to the next one, until one has it or none is left.
"""

from proxy.clock import now_ns
from proxy.relay.context import WorkerContext
from proxy.relay.exchange.request import Request
from proxy.relay.upstreams.balancer import Refusal, Slot

_NOT_FOUND = 404


class BackendChoice:
    """The backend of one request; it counts as outstanding there until ``release``.

    Attributes:
        slot: The backend; None before ``first``, and where none can serve the request.
    """

    __slots__ = ("_context", "_key", "_pinned", "_request", "_tried", "slot")

    def __init__(self, context: WorkerContext, request: Request) -> None:
        self._context = context
        self._request = request
        self._key: int | None = None  # affinity key; None: any backend
        self._tried: list[Slot] = []  # backends that failed for this request
        self._pinned = False  # no other backend has the job
        self.slot: Slot | None = None

    def first(self, body: bytes | None) -> Slot | None:
        """Choose a backend; ``body``: the complete body, where it was read."""
        context, request = self._context, self._request
        known = context.jobs.slot_of(request.job.id) if request.job is not None else None
        if known is not None:
            self._pinned = True
            self.slot = known
            context.balancer.assign(known, now_ns())
            return known
        if context.keys is not None:
            self._key = context.keys.key(request.head, body)
        self.slot = self._acquire()
        return self.slot

    def next(self) -> Slot | None:
        """Choose a backend in place of the present one, which failed; None, and no change, without one."""
        if self.slot is None or self._pinned:
            return None
        self._tried.append(self.slot)
        other = self._acquire()
        if other is not None:
            self.release()
            self.slot = other
        return other

    def searches(self, status: int) -> bool:
        """Return whether a response of this status means that another backend may have the job.

        Keeps the backend of a job that has been found.
        """
        job = self._request.job
        if job is None or self._pinned or self.slot is None:
            return False
        if status == _NOT_FOUND:
            return len(self._tried) + 1 < len(self._context.balancer.slots)
        if status < 400:
            self._pinned = True
            self._context.jobs.remember(job.id, self.slot)
        return False

    def refusal(self) -> Refusal:
        """Return why no backend can serve the request."""
        return self._context.balancer.refusal(self._request.fields.model, now_ns())

    def release(self) -> None:
        """Count the request as ended at its backend."""
        if self.slot is not None:
            self._context.balancer.release(self.slot)

    def _acquire(self) -> Slot | None:
        model = self._request.fields.model
        return self._context.balancer.acquire(model, now_ns(), self._key, self._tried)
