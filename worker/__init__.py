"""The worker: joins a master, decodes and classifies images, and leaves cleanly."""
