"""Results as they come, of many calls.

The one thing to know: both are generators over `wait`, so nothing happens before the first result is
asked for. This file must not reorder what one `wait` gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .. import get, wait

if TYPE_CHECKING:
    from .. import ObjectRef
    from ..remote_function import RemoteFunction

DEFAULT_CHUNK_SIZE = 10
DEFAULT_BACKPRESSURE_SIZE = 100


def _check_chunk_size(chunk_size: int) -> None:
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")


def _next_chunk(refs: Sequence[Any], chunk_size: int, yield_obj_refs: bool, **kwargs: Any) -> tuple[list[Any], Any]:
    """What is ready of the next chunk, and the references that are left."""
    ready, left = wait(list(refs), num_returns=min(chunk_size, len(refs)), **kwargs)
    return (ready if yield_obj_refs else get(ready)), left


def as_completed(
    refs: Sequence[ObjectRef],
    *,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """The values of `refs` as they come, `chunk_size` at a time.

    References instead of values where `yield_obj_refs`; further arguments are those of `wait`. Raises what
    a call raised, and `ValueError` for a `chunk_size` below 1.
    """
    _check_chunk_size(chunk_size)
    if "num_returns" in kwargs:
        raise ValueError("Use the `chunksize` argument instead of `num_returns`.")
    left: Sequence[Any] = refs
    while left:
        results, left = _next_chunk(left, chunk_size, yield_obj_refs, **kwargs)
        yield from results


def map_unordered(
    fn: RemoteFunction,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = DEFAULT_BACKPRESSURE_SIZE,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """The results of `fn.remote(item)` for all items as they come.

    At most `backpressure_size` calls are under way (any number where it is `None`). The rest is as in
    `as_completed`.
    """
    if backpressure_size is not None and backpressure_size <= 0:
        raise ValueError("backpressure_size must be positive.")
    _check_chunk_size(chunk_size)
    if "num_returns" in kwargs:
        raise ValueError("Use the `chunk_size` argument instead of `num_returns`.")
    refs: list[Any] = []
    for item in items:
        refs.append(fn.remote(item))
        if backpressure_size is not None and len(refs) >= backpressure_size:
            results, refs = _next_chunk(refs, chunk_size, yield_obj_refs, **kwargs)
            yield from results
    yield from as_completed(refs, chunk_size=chunk_size, yield_obj_refs=yield_obj_refs, **kwargs)


__all__ = ["as_completed", "map_unordered"]
