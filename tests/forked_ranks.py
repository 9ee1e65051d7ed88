"""Ranks in forked processes: they need no imports, and see what a test has patched."""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness.ranks import Ranks

FORK = multiprocessing.get_context("fork")


def run_ranks(function: Callable[[Ranks], Any], world_size: int, *, accumulation: int = 1) -> list[Any]:
    """What a function returns on each rank, on the CPU; `repr` of the exception where it raises one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pipes = [FORK.Pipe(duplex=False) for _ in range(world_size)]
    ranks = [Ranks(torch.device("cpu"), rank, world_size, accumulation) for rank in range(world_size)]
    processes = [
        FORK.Process(target=_work, args=(sender, function, each, port), daemon=True)
        for (_, sender), each in zip(pipes, ranks, strict=True)
    ]
    for process in processes:
        process.start()
    results = [pickle.loads(receiver.recv_bytes()) for receiver, _ in pipes]
    for process in processes:
        process.join()
    return results


def _work(sender: Connection, function: Callable[[Ranks], Any], ranks: Ranks, port: int) -> None:
    os.environ |= {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "RANK": str(ranks.rank),
        "WORLD_SIZE": str(ranks.world_size),
    }
    torch.set_num_threads(1)
    with ranks.joined():
        try:
            result = function(ranks)
        except Exception as error:  # noqa: BLE001 - the test compares it
            result = repr(error)
        sender.send_bytes(pickle.dumps(result))  # torch would send tensors as files that this process must keep open
