"""`python -m halos.compare RUN …`: runs side by side, seeds taken together, differences taken seed by seed."""
