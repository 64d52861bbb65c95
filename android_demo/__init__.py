"""The demo app for Android, and what makes its assets."""
