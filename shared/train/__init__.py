"""Training with DeepSpeed: data order, engine, EMA, checkpoints, progress."""
