"""Messages and stubs generated from proto/vecdb/v1; change them there and run `make proto`."""
