"""Unit, contract, integration and end-to-end tests, benchmarks, and the fakes and emulators that they share."""
