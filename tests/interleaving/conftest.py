"""Makes every access of `rtcore.memory.ring` and `rtcore.memory.slots` to shared memory a step of the explorer."""

import pytest

from rtcore.memory import ring, slots
from tests.support.explorer import SteppedRecord, stepped_copy


@pytest.fixture(autouse=True)
def stepped_memory(monkeypatch):
    for module, names in ((ring, ("FRAME_HEADER", "LOG_RECORD")), (slots, ("JOB", "SLOT_ENTRY"))):
        for name in names:
            monkeypatch.setattr(module, name, SteppedRecord(getattr(module, name)))
    monkeypatch.setattr(ring, "copy_bytes", stepped_copy)
