"""Figures, and the page that holds them: from the frames that tables are written from. Matplotlib alone, no display."""
