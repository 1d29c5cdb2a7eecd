"""Programs that use both panels."""
