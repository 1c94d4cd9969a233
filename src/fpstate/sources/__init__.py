"""Where real extended state comes from: cores, processes, vCPUs, signal frames, snapshots, pasted bytes.

A reader recognises one kind of source and gives a `Capture`: threads, each with the bytes that the source holds and
with what the source itself says about them.  It places nothing: `placement` does that for all of them alike.
"""
