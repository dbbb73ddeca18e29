"""Memory that runs out on command (tests/faults/scarce_memory.c)."""

import mmap
import pathlib
import struct
import tempfile

from vitserve import BINARY, SANITIZED

LIBRARY = pathlib.Path(BINARY).parent / "scarce_memory.so"
NEVER = -1


class Memory:
    """A context manager; `variables` is for the environment of the server."""

    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile()
        self.file.write(struct.pack("qqq", NEVER, 0, 0))
        self.file.flush()
        self.shared = mmap.mmap(self.file.fileno(), 24)
        self.variables = {"LD_PRELOAD": str(LIBRARY), "SCARCE_MEMORY": self.file.name}
        if SANITIZED:
            self.variables["ASAN_OPTIONS"] = "verify_asan_link_order=0"
        return self

    def __exit__(self, *_):
        self.shared.close()
        self.file.close()

    def fail_after(self, count, lasting=False):
        """So many allocations succeed, and then one fails, or all that follow."""
        struct.pack_into("qq", self.shared, 0, count, int(lasting))

    def suffice(self):
        self.fail_after(NEVER)

    def made(self):
        """Allocations so far."""
        return struct.unpack_from("q", self.shared, 16)[0]
