"""The web page and the REST API: a stateless client of the master's core."""
