"""Errors of the state API.

The one thing to know: programs catch `RayStateApiException`. This file must not hold anything else.
"""


class RayStateApiException(Exception):
    """A question about the state could not be answered."""


class ServerUnavailable(RayStateApiException):
    """Nobody is there who could answer."""


__all__ = ["RayStateApiException", "ServerUnavailable"]
