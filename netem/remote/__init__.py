"""The same links on other hosts, over SSH, with a watchdog there that takes them back."""
