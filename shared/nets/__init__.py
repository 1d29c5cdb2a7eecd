"""Networks that both panels use."""
