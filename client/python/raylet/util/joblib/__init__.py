"""joblib over this package: `register_ray()`, then `joblib.parallel_backend("ray")`.

The one thing to know: joblib is imported when this is asked for, never before. This file must not hold
the backend itself.
"""


def register_ray() -> None:
    """Makes "ray" a backend of joblib. Raises `ImportError` where there is no joblib."""
    from joblib.parallel import register_parallel_backend

    from .ray_backend import RayBackend

    register_parallel_backend("ray", RayBackend)


__all__ = ["register_ray"]
