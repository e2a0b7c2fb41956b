"""Decisions as transitions, built from the frame ring, which is the replay memory. See docs/transitions.md."""
