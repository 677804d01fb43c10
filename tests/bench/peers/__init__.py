"""What the benchmark `peers` compares Lookout with; runs in an environment of its own."""
