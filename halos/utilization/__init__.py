"""`python -m halos.utilization`: the bandwidth that methods of synchronising need to keep a cluster computing."""
