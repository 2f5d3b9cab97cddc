"""A small Ray program, and how long it takes.

The one thing to know: nothing in it is ours but the first import; `import ray as ray` there makes it run on Ray.
This file must not use what Ray does not have.
"""

from time import perf_counter

import raylet as ray


@ray.remote
def square(x: int) -> int:
    return x * x


@ray.remote
class Sum:
    def __init__(self) -> None:
        self.total = 0

    def add(self, x: int) -> int:
        self.total += x
        return self.total


def main() -> None:
    started = perf_counter()
    ray.init(num_cpus=2)
    total = Sum.remote()
    totals = [total.add.remote(square.remote(x)) for x in range(10_000)]
    print(f"{ray.get(totals[-1]):,} after {perf_counter() - started:.2f} s")
    ray.shutdown()


if __name__ == "__main__":
    main()
