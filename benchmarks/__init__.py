"""Measures what eventcore costs, compared with other libraries and with itself: ``python -m benchmarks``.

Everything that is compared is measured in one run and in alternating rounds (A B C, A B C, …), so that other load on the
machine affects all of it. Only the ratios can be compared with those of another machine.
"""
