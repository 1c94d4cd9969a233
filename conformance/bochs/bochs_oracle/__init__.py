"""A ring-0 oracle: what the emulator Bochs does with one instruction, in the vectors format."""
