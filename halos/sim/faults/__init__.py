"""Faults as the simulation meets them."""
