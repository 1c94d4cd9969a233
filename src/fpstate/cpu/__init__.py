"""CPUs: what CPUID leaf 0DH and its neighbours tell, from this host, a dump, a VMM file or the built-in table."""
