"""Whether state can leak or get lost: properties of the kernel's functions, proven, or broken by a shortest run.

`fpstate.verify.model` reads the transition system out of `fpstate.linux.kernel` and `fpstate.linux.steps`;
`fpstate.verify.search` visits all of its states, `fpstate.verify.induction` proves it for any number of CPUs, tasks and
vCPUs.  Needs NumPy, Numba and z3 (``pip install fpstate[verify]``); does without Numba, slower.
"""
