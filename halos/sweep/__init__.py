"""A grid of runs: which cells it has, and all of them run, in parallel processes and resumably."""
