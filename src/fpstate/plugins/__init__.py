"""fpstate inside other tools.  Each module belongs to one of them, and is imported by it alone."""
