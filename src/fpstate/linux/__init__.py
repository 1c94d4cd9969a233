"""Linux on a CPU: policies, boot configuration, sizes, and what a running kernel shows of them."""
