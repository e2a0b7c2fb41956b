"""Programs for working on rtcore, outside the wheel."""
