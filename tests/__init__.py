"""Tests, and what they have in common: `tests/support/`."""
