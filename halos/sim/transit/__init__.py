"""Transfers and collectives between regions, and what becomes of payloads on the way."""
