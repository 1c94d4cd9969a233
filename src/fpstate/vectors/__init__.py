"""Test vectors: cases and results as JSON objects, one a line, for whoever tests an emulator or a kernel."""
