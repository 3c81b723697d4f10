"""TensorBoard: a run's curves on the simulated clock, and what its tabs show beside them."""
