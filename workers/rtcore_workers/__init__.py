"""Processes that compute: inference workers, learners, weight holders. Their policies, and how they get their weights.

Imports rtcore up to `processes`; rtcore starts these entries by name.
"""
