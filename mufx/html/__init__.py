"""`report.html`: one self-contained page about a conversion, an audit, a check or a sweep.

A command makes a `Document` of what it found; `written` is the page of any document.
"""

from mufx.html.document import Document
from mufx.html.page import written

__all__ = ["Document", "written"]
