"""The backend `tc`: the kernel's own `sch_netem`, with an IFB device for what arrives."""
