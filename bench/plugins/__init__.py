"""What plugins offer and build on."""
