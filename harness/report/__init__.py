"""Markdown, LaTeX, HTML, the terminal, JSON and csv: each is written from one `Results` value."""
