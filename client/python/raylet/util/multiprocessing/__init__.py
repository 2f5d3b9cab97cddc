"""`multiprocessing.Pool` over actors; see `pool`.

The one thing to know: `TimeoutError` is the standard library's, so programs need not know whose pool
they have. This file must not hold code.
"""

from multiprocessing import JoinableQueue, TimeoutError

from .pool import Pool

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]
