"""The simulation: what a policy sees, and the virtual time behind it."""
