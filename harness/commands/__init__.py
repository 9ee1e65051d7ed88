"""What the verbs of the command line do beyond running a plan and making its table: texts for people."""
