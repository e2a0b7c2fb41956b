"""The trainer's worlds."""
