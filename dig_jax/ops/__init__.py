"""What XLA needs to hear: products, aggregations and pooling of one meaning."""
