"""Settings of every test: one thread a process, no hub."""

import os

# Before torch, numpy and the hub's client are imported, which read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
