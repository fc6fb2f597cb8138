"""What eventcore costs, side by side with others and with itself: ``python -m benchmarks``.

Everything that is compared is measured in one run and in turns (A B C, A B C, …), so that what else the machine does falls on
all of them; only the ratios mean something on another machine.
"""
