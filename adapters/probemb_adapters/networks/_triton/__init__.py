"""GPU twins of what the networks stand on, one file an operation; imported only where they will run."""
