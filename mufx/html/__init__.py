"""`report.html`: one self-contained page about a conversion."""

from mufx.html.page import of_manifest

__all__ = ["of_manifest"]
