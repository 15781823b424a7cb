"""What quantlab costs: its parts are timed against their own forwards and against the documented way, in one run."""
