"""mpibench: which distributed SGD method reaches my target first on my machine, and can I trust the number?"""

__version__ = "0.1.0"
