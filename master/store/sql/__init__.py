"""Migrations, `NNN_name.sql`, and the named statements of the store."""
