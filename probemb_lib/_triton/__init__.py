"""GPU twins of public ops, one file an op under the same name; imported only where they will run."""
