"""Faults as a campaign that anybody can run: thousands of made-up runs on the virtual clock, and kills of real ones.

A seed decides everything: settings, times, faults. So each failure is one line that can be run again.
"""
