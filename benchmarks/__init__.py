"""Time and memory of our operators and models beside others', judged by the goals.

Run it with `make bench`, or `python -m benchmarks` in the root of the checkout; it is not part of the distribution.
`session` runs it, `catalogue` lists what is measured, `goals` what is to be reached.

The benchmark may import `harness` and `paradigms`; neither imports it.
"""
