"""Where a run's trials are trained: in this process, in several, or on the machines of a Ray cluster."""
