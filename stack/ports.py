"""Free ports of this machine."""

from __future__ import annotations

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on; no process of ours is given the same one while this process lives."""
    while True:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if _reserved(port):
            return port


def _reserved(port: int) -> bool:
    """Reserve ``port`` among our processes, by a name that the kernel frees when this process ends; False where it is taken."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0fincoach-port-{port}")
    except OSError:
        name.close()
        return False
    name.detach()
    return True


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on ``port``; a port in TIME_WAIT counts as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
