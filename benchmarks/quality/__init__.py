"""A small study of quality: which method reaches which loss, at equal tokens and at equal simulated time."""
