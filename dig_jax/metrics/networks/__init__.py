"""Networks that features come from: Inception, the small classifier."""
