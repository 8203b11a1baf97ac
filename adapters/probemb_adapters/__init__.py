"""Data sets and backbones for probemb_lib, one module each; import the one you need."""
