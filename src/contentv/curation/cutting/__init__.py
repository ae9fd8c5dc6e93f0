"""Where shots begin and end, and how they become clips."""
