"""The machine: from an experiment file to a table, one way (spec, plan, run, record, table)."""
