"""Which tests may run beside each other, if several do (`pytest -n 2 --dist loadgroup`, as `make test` runs them).

Those with real processes one after another, as each fills the machine; the others file by file beside them.
"""

from __future__ import annotations

import pytest

_WITH_PROCESSES = ("process", "fault")


def pytest_itemcollected(item: pytest.Item) -> None:
    folder = item.path.parent.name
    item.add_marker(pytest.mark.xdist_group("processes" if folder in _WITH_PROCESSES else item.path.stem))
