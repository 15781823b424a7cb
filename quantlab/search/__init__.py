"""What to try next: spaces of settings, samplers that propose them, and the pruner that stops what is beaten."""
