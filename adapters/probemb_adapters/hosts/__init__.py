"""The library inside other codebases: a model in their registry, a module in their trainer, results in their format.

Each file is one host and is imported where that host is; what a file says it needs is not installed with this package.
"""
