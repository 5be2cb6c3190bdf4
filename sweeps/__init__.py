"""Many runs: studies, and the Ray Tune sweeps that compute them. The only package that imports Ray."""
