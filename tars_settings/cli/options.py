"""Options that several commands have, each said once. An option of one command stands beside it."""

from __future__ import annotations

from typing import Annotated

import typer

from tars_settings.cli.common import WAIT_ALL

# --- looking ----------------------------------------------------------------------------------------------------------

RevealOption = Annotated[
    list[str] | None, typer.Option("--reveal", metavar="KEY", help="Show this secret; it is noted in the audit trail")
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Read this host's replica, and not the broker")]
PeersOption = Annotated[
    int, typer.Option("--peers", metavar="N", min=0, max=16, help="How many live workers are asked what they remember")
]
CatchUpOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to catch up")]

# --- changing ---------------------------------------------------------------------------------------------------------

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the change")]
ByOption = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who; by default this user")]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="MODULE:CLASS", help="Type and check the values by this Settings class")
]
SecretOption = Annotated[list[str] | None, typer.Option("--secret", metavar="KEY", help="Encrypt this key's value")]
PlainOption = Annotated[bool, typer.Option("--plain", help="No key of this push that nobody described is a secret")]
SplitOption = Annotated[bool, typer.Option("--split", help="Push in several deltas where one is too small; not atomic")]
RehearseOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would change, ask the workers, push nothing")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what it would do, and do nothing")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]

# --- waiting ----------------------------------------------------------------------------------------------------------

WaitOption = Annotated[
    bool,
    typer.Option("--wait/--no-wait", help="Wait for the workers' answers; --wait all asks every one of a large fleet"),
]
WaitAllOption = Annotated[bool, typer.Option(WAIT_ALL, hidden=True)]
QuorumOption = Annotated[
    str | None, typer.Option("--quorum", metavar="N|N%", help="How many of the workers asked must have applied it")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to wait")]
AnswersOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to wait for workers")
]
