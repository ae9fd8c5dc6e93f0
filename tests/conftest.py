"""Settings of every test: one thread a process, no hub, Ctrl-C as in a terminal."""

import os
import signal

# Before torch, numpy and the hub's client are imported, which read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Background jobs of a shell, CI among them, ignore Ctrl-C, and so would the programs tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
