"""Figures of tables and searches. Needs matplotlib and no display."""
