"""The end of a rank that hangs: who waits where, every thread's stack, and an exit code."""

import faulthandler
import os
import sys
import threading
import time

from mpibench.node import SECOND, Deadlock


class Watchdog(threading.Thread):
    """Ends a rank that has been still for too long, with a table of who waits where and every thread's stack."""

    def __init__(self, engine, node, seconds):
        super().__init__(daemon=True)
        self.engine, self.node, self.seconds = engine, node, seconds
        self.over = threading.Event()

    def run(self):
        """Look every second whether the engine still moves."""
        while not self.over.wait(min(1.0, self.seconds / 4)):
            still = time.perf_counter_ns() - self.engine.heartbeat
            if still > self.seconds * SECOND:
                why = f"rank {self.node.rank} has been still for {still / SECOND:.0f} s"
                print(Deadlock([self.node], why), file=sys.stderr)
                faulthandler.dump_traceback()
                sys.stderr.flush()
                time.sleep(1)  # the others say theirs, too: the first to end takes all along
                self.engine.abort(124)
                os._exit(124)
