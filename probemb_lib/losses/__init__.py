"""One loss a file, each a function and a thin module around it."""
