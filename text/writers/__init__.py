"""What a message, a tone and an audience mean for each kind of run that `diptych write` knows."""
