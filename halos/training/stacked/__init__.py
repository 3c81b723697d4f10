"""Jobs in flight at once on one device: the network, its gradients and the optimizer along an axis of workers."""
