"""Edits of the sources, and a server that rehearses cells by the edited copies."""
