"""Experiments: what loss, delay and failures do to the service, with intervals and pictures."""
