"""GPU twins of public ops, one file an op under the same name; their kernels are imported only where they will run."""
