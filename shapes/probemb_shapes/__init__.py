"""Data to train on without a download: generated furniture, open furniture, and rooms furnished with it."""
