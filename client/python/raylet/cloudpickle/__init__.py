"""The cloudpickle that this package uses, under the name that Ray programs know.

The one thing to know: the names are those of the installed `cloudpickle`; nothing is added.
"""

from cloudpickle import *  # noqa: F403
from cloudpickle import CloudPickler, Pickler, dump, dumps, load, loads

__all__ = ["CloudPickler", "Pickler", "dump", "dumps", "load", "loads"]
