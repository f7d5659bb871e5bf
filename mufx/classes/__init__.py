"""Axis classes."""
