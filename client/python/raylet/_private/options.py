"""The options of tasks, actors and methods: which there are, their defaults, and how wrong ones are refused.

The one thing to know: `TASK` and `ACTOR` are tables from a name to a `Check`; `merged` lays one set of options over
another as Ray does (a key is replaced as a whole, but `_metadata` is merged).

This module must not look at sessions: options are checked before there is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

DEFAULT_MAX_RETRIES = int(os.environ.get("RAY_TASK_MAX_RETRIES", "3"))
RESOURCE_UNIT = 10_000

# Names of the old programming model that still work.
OLD_TASK_NAMES = {"num_return_vals": "num_returns", "max_reconstructions": "max_retries"}
OLD_ACTOR_NAMES = {"max_reconstructions": "max_restarts", "detached": "lifetime", "is_asyncio": None}
OLD_METHOD_NAMES = {"num_return_vals": "num_returns"}


class Check(NamedTuple):
    """What one option may be: its types, what is wrong with a value of them, its default."""

    types: Any = None
    fault: Callable[[Any], str | None] | None = None
    default: Any = None

    def validate(self, keyword: str, value: Any) -> None:
        """Raise TypeError or ValueError, with Ray's text, for a value that this option does not take."""
        if self.types is not None and not isinstance(value, self.types):
            raise TypeError(
                f"The type of keyword '{keyword}' must be {self.types}, but received type {type(value)}"
            )
        fault = self.fault(value) if self.fault is not None else None
        if fault:
            raise ValueError(fault)


def _counting(name: str, is_infinite: bool = True, default: Any = None) -> Check:
    def fault(value: int | None) -> str | None:
        if value is None or value >= (-1 if is_infinite else 0):
            return None
        if is_infinite:
            return (
                f"The keyword '{name}' only accepts None, 0, -1 or a positive integer, where -1 represents infinity."
            )
        return f"The keyword '{name}' only accepts None, 0 or a positive integer."

    return Check((int, type(None)), fault, default)


def quantity_fault(name: str, quantity: float) -> str | None:
    """What is wrong with an amount of a resource, or None."""
    if quantity < 0:
        return f"The quantity of resource {name} cannot be negative"
    if isinstance(quantity, float) and quantity != 0.0 and int(quantity * RESOURCE_UNIT) == 0:
        return f"The precision of the fractional quantity of resource {name} cannot go beyond 0.0001"
    if name in ("num_gpus", "GPU") and quantity > 1 and quantity != int(quantity):
        return (
            f"{name} resource quantity >1 must be a whole number. The specified quantity {quantity} is invalid."
        )
    return None


def _resource(name: str, default: Any = None) -> Check:
    return Check(
        (float, int, type(None)),
        lambda value: None if value is None else quantity_fault(name, value),
        default,
    )


def resources_fault(resources: dict[str, float] | None) -> str | None:
    """What is wrong with a dictionary of custom resources, or None."""
    if resources is None:
        return None
    if "CPU" in resources or "GPU" in resources:
        return "Use the 'num_cpus' and 'num_gpus' keyword instead of 'CPU' and 'GPU' in 'resources' keyword"
    for name, quantity in resources.items():
        fault = quantity_fault(name, quantity)
        if fault:
            return fault
    return None


def _is_exception(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)


def _retry_fault(value: Any) -> str | None:
    if isinstance(value, bool) or all(_is_exception(kind) for kind in value):
        return None
    return "retry_exceptions must be either a boolean or a list of exceptions"


def _num_returns_fault(value: Any) -> str | None:
    if value is None or value in ("dynamic", "streaming"):
        return None
    # A text that is none of these two is compared with a number, which is Ray's TypeError.
    if value >= 0:
        return None
    return (
        "Default None. When None is passed, The default value is 1 for a task and actor task, and 'streaming' for "
        "generator tasks and generator actor tasks. The keyword 'num_returns' only accepts None, a non-negative "
        "integer, 'streaming' (for generators), or 'dynamic'. 'dynamic' flag will be deprecated in the future, and "
        "it is recommended to use 'streaming' instead."
    )


def _strategy_types() -> tuple[type, ...]:
    from ..util import scheduling_strategies as strategies

    return (
        type(None),
        str,
        strategies.PlacementGroupSchedulingStrategy,
        strategies.NodeAffinitySchedulingStrategy,
        strategies.NodeLabelSchedulingStrategy,
    )


def _strategy_fault(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return None
    types = _strategy_types()
    if not isinstance(value, types):
        raise TypeError(
            f"The type of keyword 'scheduling_strategy' must be {types}, but received type {type(value)}"
        )
    return None


def _group_fault(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return None
    from ..util.placement_group import PlacementGroup

    if not isinstance(value, PlacementGroup):
        raise TypeError(
            f"The type of keyword 'placement_group' must be {(type(None), str, PlacementGroup)}, but received type "
            f"{type(value)}"
        )
    return None


_NONE = type(None)
_COMMON: dict[str, Check] = {
    "label_selector": Check((dict, _NONE)),
    "fallback_strategy": Check((list, _NONE)),
    "accelerator_type": Check((str, _NONE)),
    "memory": _resource("memory"),
    "name": Check((str, _NONE)),
    "num_cpus": _resource("num_cpus"),
    "num_gpus": _resource("num_gpus"),
    "object_store_memory": _counting("object_store_memory", False),
    "placement_group": Check(None, _group_fault, "default"),
    "placement_group_bundle_index": Check(int, None, -1),
    "placement_group_capture_child_tasks": Check((bool, _NONE)),
    "resources": Check((dict, _NONE), resources_fault),
    "runtime_env": Check((dict, _NONE)),
    "scheduling_strategy": Check(None, _strategy_fault),
    "enable_task_events": Check(bool, None, True),
    "_labels": Check((dict, _NONE)),
    # Ours: "direct", "raylet" or None; and seconds that a call may take.
    "_transport": Check((str, _NONE)),
    "_timeout": Check((int, float, _NONE)),
    "_metadata": Check((dict, _NONE)),
}

_TASK_ONLY: dict[str, Check] = {
    "max_calls": _counting("max_calls", False, 0),
    "max_retries": _counting("max_retries", default=DEFAULT_MAX_RETRIES),
    "num_cpus": _resource("num_cpus", 1),
    "num_returns": Check((int, str, _NONE), _num_returns_fault),
    "object_store_memory": Check(
        (int, _NONE),
        lambda value: None if value is None else "Setting 'object_store_memory' is not implemented for tasks",
    ),
    "retry_exceptions": Check((bool, list, tuple), _retry_fault, False),
    "_generator_backpressure_num_objects": Check(
        (int, _NONE),
        lambda value: None
        if value != 0
        else "_generator_backpressure_num_objects=0 is not allowed. Use a value > 0. If the value is equal to 1, the "
        "behavior is identical to Python generator (generator 1 object whenever `next` is called). Use -1 to disable "
        "this feature. ",
    ),
    "_num_objects_per_yield": Check(
        (int, _NONE),
        lambda value: None
        if value is None or value > 0
        else "_num_objects_per_yield is a private streaming generator option that must be set to a positive integer.",
        1,
    ),
}

_ACTOR_ONLY: dict[str, Check] = {
    "concurrency_groups": Check((list, dict, _NONE)),
    "enable_tensor_transport": Check((bool, _NONE)),
    "lifetime": Check(
        (str, _NONE),
        lambda value: None
        if value in (None, "detached", "non_detached")
        else "actor `lifetime` argument must be one of 'detached', 'non_detached' and 'None'.",
    ),
    "max_concurrency": _counting("max_concurrency", False),
    "max_restarts": _counting("max_restarts", default=0),
    "max_task_retries": _counting("max_task_retries", default=0),
    "max_pending_calls": _counting("max_pending_calls", default=-1),
    "namespace": Check((str, _NONE)),
    "get_if_exists": Check(bool, None, False),
    "allow_out_of_order_execution": Check((bool, _NONE)),
    "_actor_generator_backpressure_num_objects": Check((int, _NONE)),
}

TASK: dict[str, Check] = {**_COMMON, **_TASK_ONLY}
ACTOR: dict[str, Check] = {**_COMMON, **_ACTOR_ONLY}
EVERY: dict[str, Check] = {**_TASK_ONLY, **_ACTOR_ONLY, **_COMMON}

METHOD = (
    "num_returns",
    "concurrency_group",
    "max_task_retries",
    "retry_exceptions",
    "_generator_backpressure_num_objects",
    "_num_objects_per_yield",
    "enable_task_events",
    "tensor_transport",
)

REMOTE_FORM = (
    "The @ray.remote decorator must be applied either with no arguments and no parentheses, for example "
    "'@ray.remote', or it must be applied using some of the arguments in the list "
    f"{[name for name in EVERY if not name.startswith('_')]}, for example "
    "'@ray.remote(num_returns=2, resources={\"CustomResource\": 1})'."
)


def renamed(options: dict[str, Any], names: Mapping[str, str | None]) -> dict[str, Any]:
    """`options` with the names of the old programming model replaced, each with a DeprecationWarning."""
    if names.keys().isdisjoint(options):
        return options
    from .warned import warn

    out = {}
    for key, value in options.items():
        if key not in names:
            out[key] = value
            continue
        new = names[key]
        instead = f"Use '{new}' instead." if new else "It is found out by itself."
        warn(f"The option '{key}' is deprecated. {instead}")
        if key == "detached":
            out["lifetime"] = "detached" if value else None
        elif new:
            out[new] = value
    return out


def validate_task(options: dict[str, Any], in_options: bool, is_generator: bool | None = None) -> None:
    """Raise for options that a remote function does not take. `is_generator` None: `num_returns` is not looked at."""
    for key, value in options.items():
        if key not in TASK:
            raise ValueError(
                f"Invalid option keyword {key} for remote functions. Valid ones are {list(TASK)}."
            )
        TASK[key].validate(key, value)
    if in_options and "max_calls" in options:
        raise ValueError("Setting 'max_calls' is not supported in '.options()'.")
    _check_group(options)
    if is_generator is not None:
        validate_num_returns(is_generator, options.get("num_returns"))


def validate_actor(options: dict[str, Any], in_options: bool) -> None:
    """Raise for options that an actor class does not take."""
    for key, value in options.items():
        if key not in ACTOR:
            raise ValueError(f"Invalid option keyword {key} for actors. Valid ones are {list(ACTOR)}.")
        ACTOR[key].validate(key, value)
    if in_options and "concurrency_groups" in options:
        raise ValueError("Setting 'concurrency_groups' is not supported in '.options()'.")
    if options.get("get_if_exists") and not options.get("name"):
        raise ValueError("The actor name must be specified to use `get_if_exists`.")
    if "object_store_memory" in options:
        from .warned import warn

        warn(
            "Setting 'object_store_memory' for actors is deprecated since it doesn't actually reserve the required "
            "object store memory."
        )
    _check_group(options)


def _check_group(options: dict[str, Any]) -> None:
    named = options.get("placement_group", "default") not in ("default", None)
    if named and options.get("scheduling_strategy") is not None:
        raise ValueError(
            "Placement groups should be specified via the scheduling_strategy option. The placement_group option is "
            "deprecated."
        )


def validate_num_returns(is_generator: bool, num_returns: Any) -> None:
    """Raise ValueError for a count below 0 or a stream asked of what yields nothing; warn of the old 'dynamic'."""
    if isinstance(num_returns, int) and num_returns < 0:
        raise ValueError(f"num_returns must be >= 0, but got {num_returns}.")
    if num_returns not in ("streaming", "dynamic"):
        return
    if num_returns == "dynamic":
        from .warned import warn

        warn(
            "num_returns='dynamic' is deprecated and will be removed in a future Ray release. Use "
            "num_returns='streaming' instead."
        )
    if not is_generator:
        raise ValueError(
            f"num_returns='{num_returns}' can only be used with generator functions (functions that use 'yield'). "
            "The decorated function is not a generator function."
        )


def merged(options: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`options` with the keys of `over` replaced; `_metadata` is merged key by key."""
    out = {**options, **over}
    below, above = options.get("_metadata"), over.get("_metadata")
    if below and above:
        out["_metadata"] = {**below, **above}
    return out


def held_resources(options: dict[str, Any], cpus: float | None) -> dict[str, float]:
    """The resources of `options` by name, with `cpus` where no CPUs are named. CPUs are always named, as none at all
    would mean the native side's default; other zeros are left out."""
    amounts = dict(options.get("resources") or {})
    amounts["CPU"] = options["num_cpus"] if "num_cpus" in options else cpus
    amounts["GPU"] = options.get("num_gpus")
    kind = options.get("accelerator_type")
    if kind:
        amounts[f"accelerator_type:{kind}"] = 0.001
    return {name: float(amount or 0) for name, amount in amounts.items() if amount or name == "CPU"}
