"""What moving extended state costs: bytes by the rules of `fpstate.isa`, cycles by a calibration of a CPU.

Nothing here needs NumPy; the counts that are priced come from `fpstate.traces.census`.
"""
