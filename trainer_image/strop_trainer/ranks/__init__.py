"""Training in several processes: how they are started, what they agree on, how they share the model's state."""
