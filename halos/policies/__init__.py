"""The sync policies that come with halos; delete any, the rest works on.

What a policy is, and what it may call, is in halos/sim/simulation.py: SyncPolicy and Simulation.
"""
