"""Making actors: from a class, options and arguments to a native actor and its handle.

The one thing to know: what a class with one set of options is exported as is made once per session; each actor after
that costs its arguments.

This module must not keep handles.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from . import environments, invocation, signature
from . import options as option_tables
from . import session as sessions
from .code import Code
from .methods import is_async, methods_of
from .placement import placement_of, unschedulable
from .session import Session

ASYNC_CONCURRENCY = 1000


def check_environment(options: dict[str, Any]) -> None:
    """Raise TypeError or ValueError for a runtime environment that cannot be made."""
    if options.get("runtime_env"):
        environments.checked(options["runtime_env"])


def check_group(info: dict[str, Any], group: str | None) -> None:
    """Raise ValueError for a concurrency group that the actor does not have."""
    if group is not None and group not in info["groups"]:
        raise ValueError(
            f"The concurrency group '{group}' is not one of this actor's: {sorted(info['groups'])}. Name it in "
            "@ray.remote(concurrency_groups=...)."
        )


class Maker:
    """Makes actors of one class with one set of options."""

    def __init__(self, code: Code, options: dict[str, Any]) -> None:
        self.code = code
        self.options = options

    @functools.cached_property
    def methods(self) -> dict[str, Any]:
        """The methods by name. Not looked at before the first actor: a class that is just being unpickled has none."""
        return methods_of(self.code.value)

    @functools.cached_property
    def constructor(self) -> signature.Shape:
        """The shape of the constructor's parameters."""
        described = self.methods.get("__init__")
        return described.shape if described is not None else ()

    @functools.cached_property
    def is_async(self) -> bool:
        """Whether the actor runs on an event loop."""
        return is_async(self.code.value)

    def make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make an actor and give its handle.

        Raises TypeError for arguments that the constructor does not take, ValueError for options that contradict.
        """
        from ..actor import ActorHandle

        session = sessions.ensure()
        self._check_names()
        signature.binder(self.constructor)(args, kwargs)
        concurrency = self._concurrency()
        if session.is_local:
            from . import local

            return local.make_actor(self, args, kwargs)
        error = unschedulable(self.options, session, is_actor=True)
        if error is not None:
            raise error
        environment = invocation.environment_of(self.options, session)
        info = self.info(environment, concurrency)
        native_options = self._native_options(info, environment, session)
        info["placed"] = native_options["placed"]
        info["resources"] = invocation.shown_resources(native_options["resources"], native_options["memory"])
        variant = repr(sorted((key, repr(value)) for key, value in info.items() if key != "methods"))
        exported = self.code.export(session, info, variant)
        from .. import _native

        core = _native.create_actor(
            exported.key, self.code.name, exported.definition, native_options, args, kwargs or None
        )
        # An actor that existed under this name may be of another class: its own definition tells.
        return ActorHandle(core, None if self.options.get("get_if_exists") else info)

    def _check_names(self) -> None:
        if self.options.get("name") == "":
            raise ValueError("Actor name cannot be an empty string.")
        namespace = self.options.get("namespace")
        if namespace == "":
            raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')

    def _concurrency(self) -> int:
        given = self.options.get("max_concurrency")
        limit = (ASYNC_CONCURRENCY if self.is_async else 1) if given is None else given
        if limit < 1:
            raise ValueError("max_concurrency must be >= 1")
        if self.options.get("allow_out_of_order_execution") is False and (self.is_async or limit > 1):
            kind = "async" if self.is_async else "multi-threaded"
            raise ValueError(
                f"If you're using {kind} actors, Ray can't execute actor tasks in order. Set "
                "`allow_out_of_order_execution=True` to allow out-of-order execution."
            )
        return limit

    def info(self, environment: dict[str, Any], concurrency: int) -> dict[str, Any]:
        """What handles and the actor's worker are told."""
        groups = self.options.get("concurrency_groups") or {}
        is_hosted = self.is_async or concurrency > 1 or bool(groups)
        return {
            "kind": "actor",
            "name": self.code.name,
            "module": self.code.module,
            "methods": self.methods,
            "mode": "hosted" if is_hosted else "plain",
            "is_async": self.is_async,
            "concurrency": concurrency,
            "groups": dict(groups),
            "environment": environment,
            "runtime_env": dict(self.options.get("runtime_env") or {}),
            "actor_name": self.options.get("name"),
            "namespace": self.options.get("namespace"),
            "max_task_retries": self.options.get("max_task_retries") or 0,
            "max_pending_calls": self.options.get("max_pending_calls") or -1,
        }

    def _native_options(
        self, info: dict[str, Any], environment: dict[str, Any], session: Session
    ) -> dict[str, Any]:
        held, placing = self.resources()
        total = info["concurrency"] + sum(info["groups"].values())
        return {
            "resources": {"CPU": 0.0, **held},
            "placing": {"CPU": 0.0, **placing},
            "memory": int(self.options.get("memory") or 0),
            "max_restarts": self.options.get("max_restarts") or 0,
            "max_task_retries": info["max_task_retries"],
            "max_concurrency": total if info["mode"] == "hosted" else 1,
            "concurrency_groups": info["groups"] or None,
            "is_async": self.is_async,
            "is_detached": self.options.get("lifetime") == "detached",
            "name": self.options.get("name"),
            "namespace": self.options.get("namespace"),
            "get_if_exists": bool(self.options.get("get_if_exists")),
            **placement_of(self.options, held, placing, self.code.name, environments.group_of(environment)),
        }

    def resources(self) -> tuple[dict[str, float], dict[str, float]]:
        """What the actor holds while it lives, and what must be free for it to be placed.

        With no resource asked for it holds nothing and needs one CPU to be placed.
        """
        asked = ("num_cpus", "num_gpus", "resources", "accelerator_type")
        if all(self.options.get(key) is None for key in asked):
            return {"CPU": 0.0}, {"CPU": 1.0}
        cpus = self.options.get("num_cpus")
        held = option_tables.held_resources({**self.options, "num_cpus": 1 if cpus is None else cpus}, 1)
        return held, held


class _Pending:
    """How many calls of one handle's actor have no result yet."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.lock = threading.Lock()

    def take(self) -> bool:
        with self.lock:
            if self.count >= self.limit:
                return False
            self.count += 1
            return True

    def give_back(self) -> None:
        with self.lock:
            self.count -= 1


_pending: dict[bytes, _Pending] = {}


def limited(caller: Any, core: Any, limit: int, name: str) -> Callable[..., Any]:
    """A caller that raises PendingCallsLimitExceeded while `limit` calls of the actor have no result."""
    from .. import _native
    from ..exceptions import PendingCallsLimitExceeded

    pending = _pending.setdefault(core.id(), _Pending(limit))

    def remote(*args: Any, **kwargs: Any) -> Any:
        if not pending.take():
            raise PendingCallsLimitExceeded(
                f"The task {name} could not be submitted to {core.id().hex()} because more than {limit} tasks are "
                "queued on the actor. This limit can be adjusted with the `max_pending_calls` actor option."
            )
        try:
            result = caller(*args, **kwargs)
        except BaseException:
            pending.give_back()
            raise
        first = result[0] if isinstance(result, list) else result
        if isinstance(first, _native.ObjectRef):
            _native.on_ready(first, pending.give_back)
        else:
            pending.give_back()
        return result

    return remote
