"""pointcept/engines/hooks."""
