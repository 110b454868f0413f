"""What an operator touches: signing pushes, and hearing who applied them. The command line is made of it."""

from __future__ import annotations

from tars_settings.writer.asking import Answered
from tars_settings.writer.receipt import Receipt, Reply, Report
from tars_settings.writer.signing import Writer

__all__ = ["Answered", "Receipt", "Reply", "Report", "Writer"]
