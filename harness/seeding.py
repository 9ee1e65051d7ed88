"""Seeds derived from names, never from order of execution."""

import hashlib


def seed_for(stream: str, *identity: str | int) -> int:
    """A seed in [0, 2^63) for one named stream of randomness.

    The same `stream` and `identity` give the same seed in every process, on every machine, in any order of calls:
    `seed_for("order", replicate, epoch)` is how two rows of a table see the same images in the same order.
    """
    name = "\x1f".join([stream, *(f"{type(part).__name__}:{part}" for part in identity)])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
