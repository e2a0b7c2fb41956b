"""Modules that make the fork server's life hard when it imports them."""
