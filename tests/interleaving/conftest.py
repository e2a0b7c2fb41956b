"""Makes every access of the protocols to shared memory a step of the explorer."""

import pytest

from rtcore.torture.stepped import stepped_protocols


@pytest.fixture(autouse=True)
def stepped_memory():
    with stepped_protocols():
        yield
