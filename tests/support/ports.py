"""Ports of the loopback address for servers that are told theirs before they start."""

import os
import socket
from itertools import count, islice

FIRST = 20_000
"""Below the ports that the kernel gives to connections by itself (from 32768 on): none is taken in between."""
PORTS_OF_A_WORKER = 1_500
WORKERS = 8

_next = count()


def free_ports(number: int) -> list[int]:
    """Returns different ports that nobody listens on, and that no other worker of this run of tests is given.

    Raises:
        RuntimeError: The worker's share has no such ports left.
    """
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % WORKERS if parallel else 0
    # Another run of tests at the same time starts elsewhere in the share.
    start = (os.getppid() if parallel else os.getpid()) * 37
    ports: list[int] = []
    for tried in islice(_next, PORTS_OF_A_WORKER):
        port = FIRST + worker * PORTS_OF_A_WORKER + (start + tried) % PORTS_OF_A_WORKER
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        ports.append(port)
        if len(ports) == number:
            return ports
    raise RuntimeError(f"no {number} free ports from {FIRST + worker * PORTS_OF_A_WORKER} on")


def free_port() -> int:
    """Returns one such port."""
    return free_ports(1)[0]
