"""How many cases a test draws: a third of the usual ones in `make test`, all of them and more in `make test-drawn`.

Hypothesis marks tests that draw through it (`hypothesis`); what else uses `cases` is marked `drawn`.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings

#: Of a test that says nothing else.
_USUAL = 100


def register_profiles() -> None:
    """The quick one is what counts where nobody asks for another."""
    # No test asserts a duration, and Hypothesis does, unless it is told not to.
    for name, share in (("quick", 1 / 3), ("thorough", 3)):
        examples = round(share * _USUAL)
        settings.register_profile(
            name, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        )
    settings.load_profile("quick")


def examples(usual: int, **others: Any) -> settings:
    """Over `@given`, in place of Hypothesis's `settings`.

    Args:
        usual: `max_examples`, of which a test draws the profile's share, but five at least.
        **others: As of `settings`.
    """
    return settings(max_examples=max(min(usual, 5), round(usual * _share())), **others)


def cases(usual: int) -> int:
    """Of a test that draws from a seed of its own: never more than `usual`, for which its seed is known to be good."""
    return max(1, round(usual * min(1, _share())))


def _share() -> float:
    return settings().max_examples / _USUAL
