"""Metrics of programs: counters, gauges, histograms.

The one thing to know: what is recorded is checked and counted in this process, by the values of its
tags; nothing exports it yet. This file must not slow its callers down: no locks but the interpreter's,
no messages.
"""

from __future__ import annotations

import bisect
import re
from typing import Any, TypeVar

Self = TypeVar("Self", bound="Metric")

NAME = re.compile(r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")


class Metric:
    """What all metrics have: a name, a description, keys of tags and their defaults.

    Raises `ValueError` for an empty name and for tags that are missing or unknown, `TypeError` for tags
    that are no texts. A name that no exporter takes is warned of, and what is recorded dropped.
    """

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None) -> None:
        if not name:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        self._is_dropped = not NAME.match(name)
        if self._is_dropped:
            from .._private.warned import warn

            warn(
                f"Invalid metric name: {name}. Metric will be discarded and data will not be collected or published. "
                "Metric names can only contain letters, numbers, _, and :. Metric names cannot start with numbers.",
                UserWarning,
            )
        self._name = name
        self._description = description
        self._tag_keys = tag_keys or ()
        self._default_tags: dict[str, str] = {}
        if not isinstance(self._tag_keys, tuple):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(self._tag_keys)}")
        for key in self._tag_keys:
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
        self._values: dict[tuple[str, ...], Any] = {}

    def set_default_tags(self: Self, default_tags: dict[str, str]) -> Self:
        """The metric itself, with values for tags that a record does not name."""
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        self._default_tags = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """Its name, description, keys of tags and their defaults."""
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def _tagged(self, tags: dict[str, str] | None) -> tuple[str, ...]:
        for value in (tags or {}).values():
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        all_tags = {**self._default_tags, **(tags or {})}
        missing = [key for key in self._tag_keys if key not in all_tags]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.")
        return tuple(all_tags[key] for key in self._tag_keys)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process counts for itself.
        return _made, (type(self), *self._made_of(), self._default_tags)

    def _made_of(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self._name,), {"description": self._description, "tag_keys": self._tag_keys}


def _made(kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any], default_tags: dict[str, str]) -> Any:
    return kind(*args, **kwargs).set_default_tags(default_tags)


class Counter(Metric):
    """Something that only grows."""

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Adds `value`. Raises `ValueError` unless it is above 0."""
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        if value <= 0:
            raise ValueError(f"value must be >0, got {value}")
        key = self._tagged(tags)
        if not self._is_dropped:
            self._values[key] = self._values.get(key, 0.0) + value


class Gauge(Metric):
    """Something that goes up and down."""

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """Sets the value; `None` changes nothing."""
        if value is None:
            return
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        key = self._tagged(tags)
        if not self._is_dropped:
            self._values[key] = float(value)


class Histogram(Metric):
    """How often values are in which range; `boundaries` are the ranges' upper ends, rising, above 0."""

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: list[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(name, description, tag_keys)
        if not boundaries:
            raise ValueError(
                "boundaries argument should be provided when using the Histogram class. "
                "e.g., Histogram('name', boundaries=[1.0, 2.0])"
            )
        for boundary in boundaries:
            if boundary <= 0:
                raise ValueError(f"Invalid `boundaries` argument: {boundaries}. Use positive values only.")
        self.boundaries = list(boundaries)

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Counts a value in its range."""
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        key = self._tagged(tags)
        if not self._is_dropped:
            counts = self._values.setdefault(key, [0] * (len(self.boundaries) + 1))
            counts[bisect.bisect_left(self.boundaries, value)] += 1

    @property
    def info(self) -> dict[str, Any]:
        """As every metric's, with its boundaries."""
        return {**super().info, "boundaries": self.boundaries}

    def _made_of(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = super()._made_of()
        return args, {**kwargs, "boundaries": self.boundaries}


__all__ = ["Counter", "Gauge", "Histogram", "Metric"]
