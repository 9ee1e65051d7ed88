"""Figures of tables and searches, and the HTML page that contains them. Needs matplotlib and no display."""
