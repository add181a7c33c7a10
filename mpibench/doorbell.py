"""Wakes ranks of one host when a message has come, so that dozens of them can wait on a few cores without polling."""

import contextlib
import os
import secrets
import select
import socket


class Doorbell:
    """A datagram socket of this rank, and the addresses of the others. All ranks of `comm` make one together.

    `everybody`: whether all ranks are on this host and have one; else ranks must look for messages themselves.
    """

    def __init__(self, comm):
        self.socket = None
        address = f"\0mpibench-{os.getpid()}-{secrets.token_hex(8)}"  # abstract: no file, gone with the process
        with contextlib.suppress(OSError, AttributeError):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socket.setblocking(False)
            self.socket.bind(address)
        mine = socket.gethostname()
        others = comm.allgather((mine, address if self.socket is not None else None))
        self.addresses = [address if host == mine else None for host, address in others]
        self.everybody = None not in self.addresses

    def ring(self, rank):
        """Wake this rank. One that has been rung often enough wakes anyway."""
        if self.addresses[rank] is not None:
            with contextlib.suppress(OSError):
                self.socket.sendto(b"", self.addresses[rank])

    def wait(self, seconds):
        """Sleep until somebody rings, at most so long; whether somebody has."""
        if not select.select([self.socket] if self.socket is not None else [], [], [], seconds)[0]:
            return False
        with contextlib.suppress(BlockingIOError):
            while True:
                self.socket.recv(1)
        return True

    def close(self):
        """Give the address back."""
        if self.socket is not None:
            self.socket.close()
