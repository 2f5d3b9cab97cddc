"""Who has which passage first: an actor, or several that share the hashes among them.

The one thing to know: workers send hashes only, and get a bit for each. An actor notes for every hash the place
(batch, row) that it was first told; calls of an actor run in the order that they were made in, even where an argument
comes late, and the driver makes them in the corpus' order: so the passage with the smallest place stays. The same
question asked again has the same answer, so an actor that died is made anew and told everything again.

This file must not see a passage.
"""

import os
from time import perf_counter_ns

import raylet as ray

from .operators.passages import HASH_BYTES
from .tasks import Receipt, receipt

# How often actors are made anew before a death is an error.
RESTARTS_MAX = 3


@ray.remote
class Seen:
    """The first place of each hash of one shard."""

    def __init__(self, shard: int, shards: int) -> None:
        self.shard, self.shards = shard, shards
        self.first: dict[bytes, tuple[int, int]] = {}

    @ray.method(num_returns=2)
    def claim(self, batch: int, hashes: bytes) -> tuple[bytes, Receipt]:
        """A bit for each hash of a batch: whether it is this shard's, and stands nowhere before."""
        started = perf_counter_ns()
        rows = len(hashes) // HASH_BYTES
        bits = bytearray((rows + 7) // 8)
        for row in range(rows):
            if self.is_first(hashes[row * HASH_BYTES : (row + 1) * HASH_BYTES], (batch, row)):
                bits[row // 8] |= 1 << row % 8
        return bytes(bits), receipt(started, (hashes,), (bits,), int.from_bytes(bits).bit_count())

    def is_first(self, hashed: bytes, place: tuple[int, int]) -> bool:
        """Notes the place of a hash that is this shard's and new."""
        is_ours = hashed[0] % self.shards == self.shard
        return is_ours and self.first.setdefault(hashed, place) == place

    def pid(self) -> int:
        """The process that it lives in."""
        return os.getpid()


class Shards:
    """All shards, and what they were told."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.restarts = 0
        self.told: list[ray.ObjectRef] = []
        self.actors = self.start()

    def start(self) -> list:
        """So many actors that know nothing."""
        return [Seen.remote(shard, self.count) for shard in range(self.count)]

    def claim(self, hashes: ray.ObjectRef) -> list[tuple[ray.ObjectRef, ray.ObjectRef]]:
        """Tells the next batch of the corpus."""
        self.told.append(hashes)
        return self.ask(len(self.told) - 1)

    def ask(self, batch: int) -> list[tuple[ray.ObjectRef, ray.ObjectRef]]:
        """The bits and the receipt of each shard, for a batch that was told."""
        return [tuple(actor.claim.remote(batch, self.told[batch])) for actor in self.actors]

    def restart(self, death: Exception) -> None:
        """Makes the actors anew, after one has died. They have to be asked all again, in order."""
        self.restarts += 1
        if self.restarts > RESTARTS_MAX:
            raise death
        self.actors = self.start()

    def pid(self) -> int:
        """The process of the first actor."""
        return ray.get(self.actors[0].pid.remote())

    def kill(self) -> None:
        """Ends the first actor without its process, where all live in one."""
        ray.kill(self.actors[0])
