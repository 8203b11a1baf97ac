"""pointcept/models/utils."""
