"""The functions of the public interface: init, shutdown, get, put, wait, cancel, kill, remote and looking around.

The one thing to know: what is called often (`get`, `put`, `wait`) is native; it comes here, to `get_other` and its
like, only with what is out of the ordinary.

This module must not import third-party modules.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from .. import _native
from ..exceptions import RaySystemError
from . import driver
from . import options as option_tables
from . import session as sessions
from .generator import ObjectRefGenerator
from .session import Session

ObjectRef = _native.ObjectRef

OBJECT_STORE_BYTES_MIN = 75 * 2**20
# What the raylet's socket is called in its session's directory.
SOCKET = "socket"

# Accepted and not used: they say how Ray's own processes are to be run.
_PRIVATE_KEYS = {
    "_system_config",
    "_temp_dir",
    "_node_ip_address",
    "_memory",
    "_plasma_directory",
    "_node_name",
    "_metrics_export_port",
    "_enable_object_reconstruction",
    "_tracing_startup_hook",
    "_redis_password",
    "_redis_username",
    "_driver_object_store_memory",
    "_skip_env_hook",
    "object_spilling_directory",
    "_transport",
    "_timeline",
    "_workers_max",
}
# Of the old programming model: the name it has now, or None where nothing is left to say.
_OLD_KEYS: dict[str, str | None] = {
    "redis_address": "address",
    "memory": "_memory",
    "temp_dir": "_temp_dir",
    "node_ip_address": "_node_ip_address",
    "plasma_directory": "_plasma_directory",
    "redis_password": "_redis_password",
    "driver_object_store_memory": None,
    "redis_max_memory": None,
    "redis_max_clients": None,
    "num_redis_shards": None,
    "huge_pages": None,
    "include_java": None,
    "include_webui": None,
    "webui_host": None,
    "internal_config": None,
    "_internal_config": None,
    "load_code_from_local": None,
    "java_worker_options": None,
    "raylet_socket_name": None,
    "plasma_store_socket_name": None,
    "use_pickle": None,
    "lru_evict": None,
    "object_id_seed": None,
}


class RayContext(Mapping[str, Any]):
    """What `init` gives: facts of the session, and a context manager that ends it."""

    def __init__(self, address_info: dict[str, Any]) -> None:
        from .. import __version__

        self.address_info = address_info
        self.dashboard_url = address_info.get("webui_url")
        self.python_version = ".".join(str(part) for part in sys.version_info[:3])
        self.ray_version = __version__
        self.ray_commit = "raylet"

    def __getitem__(self, key: str) -> Any:
        if key == "address":
            from .warned import warn

            warn('Accessing ctx["address"] is deprecated. Use ctx.address_info["address"].')
        return self.address_info[key]

    def __len__(self) -> int:
        return len(self.address_info)

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __enter__(self) -> RayContext:
        return self

    def __exit__(self, *error: Any) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """End the session."""
        shutdown()

    def __repr__(self) -> str:
        return (
            f"RayContext(dashboard_url={self.dashboard_url!r}, python_version={self.python_version!r}, "
            f"ray_version={self.ray_version!r})"
        )

    def _repr_html_(self) -> str:
        rows: list[tuple[str, Any]] = [("Python version", self.python_version), ("Ray version", self.ray_version)]
        rows.append(("Session", self.address_info.get("session_dir")))
        cells = "".join(f"<tr><td><b>{name}:</b></td><td>{value}</td></tr>" for name, value in rows)
        return f"<table>{cells}</table>"


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | None = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: int | None = None,
    job_config: Any = None,
    configure_logging: bool = True,
    logging_level: int | str = "info",
    logging_format: str | None = None,
    logging_config: Any = None,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: dict[str, Any] | None = None,
    **kwargs: Any,
) -> RayContext:
    """Start a raylet, or join one, and make this process its driver.

    `address`: None joins `$RAY_ADDRESS` or the session that `raylet start` left and starts one else; "auto" joins and
    raises ConnectionError where there is none; "local" always starts one; a session's directory or socket joins that.
    `object_store_memory` in bytes, at least 75 MiB. `local_mode` runs everything in this process, one after the other.

    Raises RuntimeError when there is a session already (unless `ignore_reinit_error`) and for unknown arguments,
    ValueError for numbers that make no sense and for resources given where a session is joined.
    """
    address, more = _old_arguments(address, kwargs)
    _check_unknown(more)
    if sessions.current() is not None:
        return _again(ignore_reinit_error)
    _check_amounts(num_cpus, num_gpus, resources, object_store_memory)
    address = _address(address)
    if address not in (None, "local"):
        _check_joining(num_cpus=num_cpus, num_gpus=num_gpus, resources=resources, labels=labels,
                       object_store_memory=object_store_memory)
    from . import environments

    environment = environments.checked(_job_environment(job_config, runtime_env))
    namespace = _namespace(namespace, job_config)
    with sessions.lock:
        job = sessions.describe_driver(namespace)
        if local_mode:
            info = _native.init({"mode": "local", "object_store_memory": object_store_memory})
            session = Session("local", info, job)
        else:
            config = {
                "mode": "raylet",
                "address": address,
                "namespace": namespace,
                "transport": more.get("_transport"),
                "log_to_driver": log_to_driver is not False,
                "object_store_memory": object_store_memory,
                "spill_directory": more.get("object_spilling_directory"),
                "num_cpus": num_cpus,
                "num_gpus": num_gpus,
                "memory": more.get("_memory"),
                "resources": resources,
                "timeline": more.get("_timeline", True),
                "workers_max": more.get("_workers_max"),
                **driver.programs(job),
            }
            info = _native.init(config)
            session = Session("driver", info, job)
            session.job["runtime_env"] = environments.shipped(environment, info.get("session_dir") or "/tmp")
        session.job["given_runtime_env"] = dict(runtime_env or {})
        session.address_info = _address_info(info)
        sessions.set_current(session)
    if configure_logging:
        driver.configure_logging(logging_level, logging_format)
    driver.began(session)
    return RayContext(dict(session.address_info))


def _old_arguments(address: str | None, kwargs: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The arguments with the names of the old programming model replaced, each with a DeprecationWarning."""
    more = dict(kwargs)
    old = _OLD_KEYS.keys() & more.keys()
    if old:
        from .warned import warn
    for key in old:
        value, new = more.pop(key), _OLD_KEYS[key]
        instead = f"Use '{new}' instead." if new else "It has no effect any more."
        warn(f"The argument '{key}' of init is deprecated. {instead}")
        if new == "address":
            address = address or value
        elif new:
            more.setdefault(new, value)
    return address, more


def _check_unknown(more: dict[str, Any]) -> None:
    known = _PRIVATE_KEYS | {
        "enable_resource_isolation",
        "cgroup_path",
        "system_reserved_cpu",
        "system_reserved_memory",
        "proxy_server_url",
    }
    unknown = [key for key in more if key not in known]
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")
    config = more.get("_system_config")
    if config is not None and not isinstance(config, dict):
        raise TypeError("The _system_config must be a dict.")


def _again(ignore_reinit_error: bool) -> RayContext:
    if not ignore_reinit_error:
        raise RuntimeError(
            "Maybe you called ray.init twice by accident? This error can be suppressed by passing in "
            "'ignore_reinit_error=True' or by calling 'ray.shutdown()' prior to 'ray.init()'."
        )
    return RayContext(dict(sessions.require().address_info))


def _check_amounts(
    num_cpus: float | None, num_gpus: float | None, resources: dict[str, float] | None, store: int | None
) -> None:
    for name, amount in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
        fault = option_tables.quantity_fault(name, amount) if amount is not None else None
        if fault:
            raise ValueError(fault)
    fault = option_tables.resources_fault(resources)
    if fault:
        raise ValueError(fault)
    if store is not None and store < OBJECT_STORE_BYTES_MIN:
        raise ValueError(
            f"Attempting to cap object store memory usage at {store} bytes, but the minimum allowed is "
            f"{OBJECT_STORE_BYTES_MIN} bytes."
        )


def _address(address: str | None) -> str | None:
    if address in (None, "auto") and os.environ.get("RAY_ADDRESS"):
        address = os.environ["RAY_ADDRESS"]
    if address and address.startswith("ray://"):
        raise ValueError(f"{address!r}: Ray Client is not supported. Use 'auto', 'local' or a session's directory.")
    if address and os.path.basename(address) == SOCKET:
        # What `raylet start` prints, and what `address_info` calls the address.
        return os.path.dirname(address)
    return address or None


def _check_joining(**given: Any) -> None:
    for names in (("num_cpus", "num_gpus"), ("resources",), ("labels",), ("object_store_memory",)):
        if any(given[name] is not None for name in names):
            raise ValueError(
                f"When connecting to an existing cluster, {' and '.join(names)} must not be provided."
            )


def _job_environment(job_config: Any, runtime_env: dict[str, Any] | None) -> dict[str, Any] | None:
    if runtime_env is None and job_config is not None:
        return getattr(job_config, "runtime_env", None)
    return runtime_env


def _random_uuid() -> str:
    """A random UUID, as Ray's; `uuid` takes long to import."""
    digits = os.urandom(16).hex()
    return "-".join((digits[:8], digits[8:12], f"4{digits[13:16]}", f"a{digits[17:20]}", digits[20:]))


def _namespace(namespace: str | None, job_config: Any) -> str:
    if namespace is None and job_config is not None:
        namespace = getattr(job_config, "ray_namespace", None)
    if namespace is None:
        return _random_uuid()
    if not isinstance(namespace, str):
        raise TypeError("namespace must be None or a string.")
    if not namespace:
        raise ValueError('"" is not a valid namespace. Pass None to not specify a namespace.')
    return namespace


def _address_info(info: dict[str, Any]) -> dict[str, Any]:
    from . import errors

    address = info.get("address")
    return {
        "node_ip_address": errors.node_ip(),
        "object_store_address": address,
        "raylet_socket_name": address,
        "gcs_address": address,
        "address": address,
        "redis_address": None,
        "webui_url": None,
        "session_dir": info.get("session_dir"),
        "session_name": info.get("session_id"),
        "node_id": info.get("node_id"),
        "metrics_export_port": None,
        "dashboard_agent_listen_port": None,
    }


def shutdown(*, wait_for_processes: bool = False, _exiting_interpreter: bool = False) -> None:
    """End the session and all that it started. Twice is once. References of before raise from now on."""
    with sessions.lock:
        session = sessions.current()
        if session is None or session.kind == "worker":
            return
        sessions.set_current(None)
        try:
            _native.shutdown()
        finally:
            driver.ended(session)


def is_initialized() -> bool:
    """Whether there is a session."""
    return sessions.current() is not None


get = _native.get
put = _native.put
wait = _native.wait


def _begin() -> None:
    """Start a session where there is none."""
    sessions.ensure()
    if not _native.is_initialized():
        raise RaySystemError(sessions.NOT_STARTED)


def get_other(refs: Any, timeout: float | None, writable: str | None) -> Any:
    """`get` of anything but a reference or a list of references, or without a session.

    Raises ValueError for what is neither a reference nor a list, TypeError for a list with something else in it.
    """
    if isinstance(refs, ObjectRefGenerator):
        return refs
    if not isinstance(refs, (ObjectRef, list)):
        raise ValueError(
            f"Invalid type of object refs, {type(refs)}, is given. 'object_refs' must either be an ObjectRef or a list "
            "of ObjectRefs. "
        )
    for ref in refs if isinstance(refs, list) else ():
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"Attempting to call `get` on the value {ref}, which is not an ray.ObjectRef.")
    _begin()
    if writable is not None:
        return _get_writable(refs, timeout, writable)
    return _native.get(list(refs) if isinstance(refs, list) else refs, timeout=timeout)


def _get_writable(refs: Any, timeout: float | None, writable: str) -> Any:
    if writable != "copy_on_write":
        raise ValueError(f"writable is None or 'copy_on_write', not {writable!r}")
    if isinstance(refs, list):
        return [_native.get_writable(ref, timeout) for ref in refs]
    return _native.get_writable(refs, timeout)


def put_other(value: Any) -> Any:
    """`put` of a reference, which raises TypeError, or without a session."""
    if isinstance(value, ObjectRef):
        raise TypeError(
            "Calling 'put' on an ray.ObjectRef is not allowed. If you really want to do this, you can wrap the "
            "ray.ObjectRef in a list and call 'put' on it."
        )
    _begin()
    return _native.put(value)


def wait_other(
    ray_waitables: Any, num_returns: int, timeout: float | None, fetch_local: bool
) -> tuple[list[Any], list[Any]]:
    """`wait` for generators, for nothing, or without a session.

    Raises TypeError for anything but a list of references or generators, ValueError for duplicates and wrong counts.
    """
    _check_waitables(ray_waitables, timeout)
    _begin()
    if not ray_waitables:
        return [], []
    if len(set(ray_waitables)) != len(ray_waitables):
        raise ValueError("Wait requires a list of unique ray_waitables.")
    if num_returns <= 0:
        raise ValueError(f"Invalid number of objects to return {num_returns}.")
    if num_returns > len(ray_waitables):
        raise ValueError("num_returns cannot be greater than the number of ray_waitables provided to ray.wait.")
    return _native.wait_for_any(ray_waitables, num_returns, timeout)


def _check_waitables(waitables: Any, timeout: float | None) -> None:
    expected = "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator"
    kinds = (ObjectRef, ObjectRefGenerator)
    if isinstance(waitables, kinds):
        raise TypeError(f"{expected}, got a single ray.ObjectRef or ray.ObjectRefGenerator {waitables}")
    if not isinstance(waitables, list):
        raise TypeError(f"{expected}, got {type(waitables)}")
    if timeout is not None and timeout < 0:
        raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    for waitable in waitables:
        if not isinstance(waitable, kinds):
            raise TypeError(f"{expected}, got list containing {type(waitable)}")


def cancel(ray_waitable: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel the task that makes a reference, or a generator. A task that has ended keeps its value.

    `force` kills the worker; ValueError for a call of an actor. `recursive` cancels what the task submitted, too.
    Raises TypeError for anything else.
    """
    sessions.ensure()
    if isinstance(ray_waitable, ObjectRefGenerator):
        ray_waitable = ray_waitable._generator_ref
    if not isinstance(ray_waitable, ObjectRef):
        raise TypeError(
            "ray.cancel() only supported for object refs. For actors, try ray.kill(). "
            f"Got: {type(ray_waitable)}."
        )
    if force and ray_waitable.binary()[8:20] != b"\xff" * 12:
        raise ValueError("force=True is not supported for actor tasks.")
    _native.cancel(ray_waitable, force, recursive)


def kill(actor: Any, *, no_restart: bool = True) -> None:
    """End an actor at once; its calls fail. `no_restart=False` has it restarted if it may be.

    Raises ValueError for what is no handle.
    """
    from ..actor import ActorHandle

    sessions.ensure()
    if not isinstance(actor, ActorHandle):
        raise ValueError(
            "ray.kill() only supported for actors. For tasks, try ray.cancel(). " f"Got: {type(actor)}."
        )
    actor._core.kill(no_restart)


def get_actor(name: str, namespace: str | None = None) -> Any:
    """The living actor of a name. Raises ValueError where there is none."""
    from ..actor import ActorHandle

    session = sessions.ensure()
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    if namespace is not None:
        namespace = _namespace(namespace, None)
    if session.is_local:
        from . import local

        core: Any = local.find_actor(name)
    else:
        core = _native.find_actor(name, namespace)
    if core is None:
        raise ValueError(
            f"Failed to look up actor with name '{name}'. This could because 1. You are trying to look up a named "
            "actor you didn't create. 2. The named actor died. 3. You did not use a namespace matching the namespace "
            "of the actor."
        )
    return ActorHandle(core)


def remote(*args: Any, **kwargs: Any) -> Any:
    """Make a function run as tasks, or a class live as actors: `@remote`, `@remote(num_cpus=2, ...)`.

    Raises ValueError for unknown options, TypeError for what is neither a function nor a class.
    """
    if len(args) == 1 and not kwargs and callable(args[0]):
        return _make_remote(args[0], {})
    assert not args and kwargs, option_tables.REMOTE_FORM
    return lambda target: _make_remote(target, dict(kwargs))


def _make_remote(target: Any, options: dict[str, Any]) -> Any:
    import inspect

    from .. import actor, remote_function

    if inspect.isfunction(target) or type(target).__name__ == "cython_function_or_method":
        return remote_function.make(target, option_tables.renamed(options, option_tables.OLD_TASK_NAMES))
    if inspect.isclass(target):
        return actor.make(target, option_tables.renamed(options, option_tables.OLD_ACTOR_NAMES))
    if isinstance(target, (remote_function.RemoteFunction, actor.ActorClass)):
        raise TypeError(f"{target!r} is remote already: @ray.remote is applied once, to a function or a class.")
    raise TypeError("The @ray.remote decorator must be applied to either a function or a class.")


# Looking around ---------------------------------------------------------------


def ask(what: str) -> Any:
    """What the raylet says about something: "nodes", "tasks", "actors", "objects", "workers", "groups", ..."""
    import json

    answer = _native.ask(what)
    return json.loads(answer) if isinstance(answer, (str, bytes)) else answer


def nodes() -> list[dict[str, Any]]:
    """The one node, as Ray describes nodes. Raises RaySystemError without a session."""
    session = sessions.require()
    node_id, address = node_id_of(session), _node_address()
    return [
        {
            "NodeID": node_id,
            "Alive": True,
            "NodeManagerAddress": address,
            "NodeManagerHostname": os.uname().nodename,
            "NodeManagerPort": 0,
            "ObjectManagerPort": 0,
            "ObjectStoreSocketName": session.address_info.get("object_store_address"),
            "RayletSocketName": session.address_info.get("raylet_socket_name"),
            "MetricsExportPort": 0,
            "NodeName": address,
            "RuntimeEnvAgentPort": 0,
            "DeathReason": 0,
            "DeathReasonMessage": "",
            "alive": True,
            "Resources": cluster_resources(),
            "Labels": {"ray.io/node-id": node_id},
        }
    ]


def node_id_of(session: Session) -> str:
    """The id of the node as 56 hexadecimal digits."""
    return session.info.get("node_id") or "0" * 56


def _node_address() -> str:
    from .errors import node_ip

    return node_ip()


def cluster_resources() -> dict[str, float]:
    """All resources of the node by name. Raises RaySystemError without a session."""
    sessions.require()
    return _named_resources("total")


def available_resources() -> dict[str, float]:
    """What is free of each resource; what is used up is absent. Raises RaySystemError without a session."""
    sessions.require()
    return {name: amount for name, amount in _named_resources("available").items() if amount > 0}


def _named_resources(which: str) -> dict[str, float]:
    found = driver.resources(which)
    found[f"node:{_node_address()}"] = 1.0
    found["node:__internal_head__"] = 1.0
    return found


def timeline(filename: str | None = None) -> Any:
    """What ran when, as events of a Chrome trace; written to a file where one is named."""
    sessions.require()
    events = driver.timeline_events()
    if filename is None:
        return events
    import json

    with open(filename, "w") as file:
        json.dump(events, file)
    return None


def get_gpu_ids() -> list[int] | list[str]:
    """The GPUs that the running task or actor was given; on the driver none."""
    session = sessions.ensure()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if session.kind != "worker" or not visible:
        return []
    return [int(gpu) if gpu.isdigit() else gpu for gpu in visible.split(",")]  # type: ignore[return-value]
