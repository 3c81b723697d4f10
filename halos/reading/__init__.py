"""What a run has recorded, as columns: of runs that are over, interrupted or still going."""
