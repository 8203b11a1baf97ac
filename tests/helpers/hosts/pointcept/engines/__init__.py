"""pointcept/engines."""
