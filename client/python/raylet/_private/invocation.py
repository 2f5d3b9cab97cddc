"""How the options of a task, an actor or a method become what the native caller is set to.

The one thing to know: everything here runs once per session for a set of options, at the first call; the calls after
that are native.

This module must not keep a remote function or a handle alive: callers hold what it returns.
"""

from __future__ import annotations

from typing import Any

from . import environments
from . import options as option_tables
from .placement import placement_of
from .session import Session

STREAMING = -1


def environment_of(options: dict[str, Any], session: Session) -> dict[str, Any]:
    """The plain runtime environment that a call with `options` runs in."""
    inherited = environments.current() if session.kind == "worker" else session.job.get("runtime_env") or {}
    own = environments.checked(options.get("runtime_env"))
    if not own:
        return inherited
    return environments.shipped(environments.merged(inherited, own), session.info.get("session_dir", "/tmp"))


def counted_returns(num_returns: Any, is_generator: bool) -> int:
    """What the native caller is told: a count, or `STREAMING`."""
    if num_returns is None:
        return STREAMING if is_generator else 1
    if num_returns == "streaming":
        return STREAMING
    return 1 if num_returns == "dynamic" else int(num_returns)


def stream_ahead(options: dict[str, Any]) -> int | None:
    """How many items a generator may be ahead of its reader; None: as many as it likes."""
    limit = options.get("_generator_backpressure_num_objects")
    return None if limit is None or limit < 0 else limit


def allowed_errors(options: dict[str, Any]) -> tuple[type, ...] | None:
    """The exceptions that are tried again where only some are; None where it is all or none."""
    allowed = options.get("retry_exceptions")
    return tuple(allowed) if isinstance(allowed, (list, tuple)) else None


def retries_errors(options: dict[str, Any]) -> bool:
    """Whether any exception is tried again."""
    allowed = options.get("retry_exceptions")
    return bool(allowed)


def task_call_options(options: dict[str, Any], environment: dict[str, Any], name: str, what: str) -> dict[str, Any]:
    """The native options of a task. Raises ValueError for a request that its placement group has no room for."""
    held = option_tables.held_resources(options, 1)
    max_retries = options.get("max_retries")
    max_calls = options.get("max_calls")
    if max_calls is None:
        max_calls = 1 if (options.get("num_gpus") or 0) > 0 else 0
    return {
        "resources": {"CPU": 0.0, **held},
        "memory": int(options.get("memory") or 0),
        "max_retries": option_tables.DEFAULT_MAX_RETRIES if max_retries is None else max_retries,
        "retry_errors": retries_errors(options),
        "max_calls": max_calls,
        "name": options.get("name") or name,
        **placement_of(options, held, held, what, environments.group_of(environment)),
        "transport": options.get("_transport"),
        "timeout": options.get("_timeout"),
    }


def shown_resources(held: dict[str, float], memory: int) -> dict[str, float]:
    """What a task or an actor is told that it holds."""
    shown = {name: amount for name, amount in held.items() if amount}
    return {**shown, "memory": float(memory)} if memory else shown
