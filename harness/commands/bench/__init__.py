"""`harness bench`: time and memory of our operators and models beside others', judged by the goals.

`session` runs it, `catalogue` lists what is measured, `goals` what is to be reached.
"""
