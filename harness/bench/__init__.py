"""Many runs: plan them, carry them out, sum them up."""
