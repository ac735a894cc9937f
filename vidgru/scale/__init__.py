"""Runs that outgrow one machine."""
