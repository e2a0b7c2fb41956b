"""Realtime worlds for rtcore."""
