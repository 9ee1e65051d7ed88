"""`harness bench`: our operators and models against others', in time and memory, judged by the goals.

`session` runs it, `catalogue` lists what is measured, `goals` what is to be reached.
"""
