"""fpstate: the toolkit for x86 extended state."""

__version__ = "0.1.0"
