"""What a GPU brings: the tests that need one, and what a run costs on it, against what the card could do."""
