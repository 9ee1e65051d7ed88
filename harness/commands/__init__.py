"""The verbs beyond run, search and table, one module for each, and their output as text."""
