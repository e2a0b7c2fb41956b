"""The trainer's networks."""
