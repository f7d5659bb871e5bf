"""mufx: a static compiler from standard to maximal update parametrization."""

from __future__ import annotations

__version__ = "0.1.0"
