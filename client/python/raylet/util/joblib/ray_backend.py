"""The backend "ray" of joblib: its batches run in the actors of a pool.

The one thing to know: an argument that several batches name is put into the store once; the batches
carry references. This file must not be imported where there is no joblib.
"""

from __future__ import annotations

import sys
from typing import Any

from joblib._parallel_backends import FallbackToBackend, MultiprocessingBackend, SequentialBackend
from joblib.parallel import BatchedCalls

from ... import ObjectRef, cluster_resources, get, init, is_initialized, put
from ..multiprocessing.pool import Pool

# Arguments below this stay in the batch: a reference is as large.
SHARED_BYTES_MIN = 4096


class _Shared:
    """Arguments that were put, by identity; each is kept so that its identity stays its own."""

    def __init__(self) -> None:
        self._put: dict[int, tuple[Any, Any]] = {}

    def ref_or_self(self, value: Any) -> Any:
        if isinstance(value, ObjectRef) or _bytes(value) < SHARED_BYTES_MIN:
            return value
        if id(value) not in self._put:
            self._put[id(value)] = (value, put(value))
        return self._put[id(value)][1]


def _bytes(value: Any) -> int:
    return getattr(value, "nbytes", None) or sys.getsizeof(value)


def _resolved(value: Any) -> Any:
    return get(value) if isinstance(value, ObjectRef) else value


class _Batch:
    """A batch whose large arguments are references."""

    def __init__(self, batch: Any, shared: _Shared) -> None:
        items = [
            (func, [shared.ref_or_self(arg) for arg in args], {k: shared.ref_or_self(v) for k, v in kwargs.items()})
            for func, args, kwargs in batch.items
        ]
        self._items = items
        self._backend = (batch._backend, batch._n_jobs)

    def __call__(self) -> list[Any]:
        items = [
            (func, [_resolved(arg) for arg in args], {k: _resolved(v) for k, v in kwargs.items()})
            for func, args, kwargs in self._items
        ]
        return BatchedCalls(items, self._backend)()


class RayBackend(MultiprocessingBackend):
    """Runs joblib's batches in a `Pool`; `ray_remote_args` are options of its actors."""

    def __init__(self, *args: Any, ray_remote_args: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._remote_args = ray_remote_args
        super().__init__(*args, **kwargs)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: Any = None,
        require: Any = None,
        ray_remote_args: dict[str, Any] | None = None,
        **_for_processes: Any,
    ) -> int:
        """Starts the pool; joblib's options for processes of its own mean nothing here."""
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        options = self._remote_args if ray_remote_args is None else ray_remote_args
        self._shared = _Shared()
        self._pool = Pool(count, ray_remote_args=options)
        self.parallel = parallel
        return count

    def effective_n_jobs(self, n_jobs: int) -> int:
        """How many actors `n_jobs` means: the session's CPUs where it is -1."""
        if n_jobs != -1:
            return super().effective_n_jobs(n_jobs)
        if not is_initialized():
            init()
        return int(cluster_resources()["CPU"])

    def _with_references(self, func: Any) -> Any:
        return _Batch(func, self._shared) if isinstance(func, BatchedCalls) else func

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Has a batch run; joblib calls this."""
        return super().submit(self._with_references(func), callback)

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        """As `submit`, as older versions of joblib call it."""
        return super().apply_async(self._with_references(func), callback)

    def terminate(self) -> None:
        """Ends the pool."""
        super().terminate()
        self._shared = _Shared()
