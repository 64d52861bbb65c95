"""Settings of the property tests; to be imported by each file that has some."""

from hypothesis import HealthCheck, settings

# The same examples on every run: a failure is then one of the change, not of the day. No deadlines: machines differ.
settings.register_profile(
    "reproducible", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("reproducible")
