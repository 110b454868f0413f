"""What is typed in the session, why, and what must be seen."""

from __future__ import annotations

from dataclasses import dataclass

WORKERS = {
    "stt-worker": ("attic", "garage", "hall", "kitchen"),
    "tts-worker": ("attic", "hall", "kitchen"),
    "router": ("attic", "hall", "kitchen"),
}
ENVIRONMENTS = {
    ("stt-worker", "garage"): {"STT_VAD_THRESHOLD": "0.9"},
    ("router", "hall"): {"ROUTER_STREAM_MIN_CHARS": "200"},
}
BEFORE = (
    ("push", "stt-worker", "vad_threshold=0.6", "--reason", "noisy kitchen"),
    ("push", "router", "stream_max_chars=400", "--reason", "long answers"),
    ("push", "stt-worker", "api_key=sk-4711-robot", "--reason", "new contract"),
)
"""What colleagues did before."""


@dataclass(frozen=True)
class Step:
    """A command, what is said before it, its exit code, and patterns that its output must fit.

    ``beside`` is typed in a second terminal while the command runs. ``happens`` is what befalls the fleet before.
    """

    text: str
    command: str
    code: int = 0
    expects: tuple[str, ...] = ()
    heading: str = ""
    beside: str = ""
    happens: str = ""


STEPS = (
    Step(
        "Who is there, and does everybody hold what the fleet says?",
        "tars-settings status",
        expects=(r"router@attic", r"STT_VAD_THRESHOLD", r"converged: 10 in step"),
        heading="Find a setting",
    ),
    Step(
        "Somebody in the garage complains that the robot does not hear him. What is there to set?",
        "tars-settings search speech gate",
        expects=(r"stt-worker.*vad_threshold",),
    ),
    Step(
        "What is it set to, and why, on each worker?",
        "tars-settings explain stt-worker vad_threshold",
        expects=(r"0\.6", r"noisy kitchen", r"garage.*STT_VAD_THRESHOLD"),
        heading="See why it has its value",
    ),
    Step(
        "The garage is pinned by its own environment: no push reaches it there, and its ``.env`` is the place to look. "
        "The other complaint is that answers come in pieces that are too long. First only ask: every live worker "
        "validates the proposal with its own model, and applies nothing.",
        'tars-settings push router stream_max_chars=100 --reason "shorter pieces" --dry-run',
        code=1,
        expects=(r"400.*100", r"router@hall", r"stream_min_chars"),
        heading="Try a change",
    ),
    Step(
        "One worker would refuse it: a rule across two fields, and the other field is pinned there. On the others it "
        "would do. Try it for ten minutes; whoever does not hear from you again goes back by himself.",
        'tars-settings push router stream_max_chars=100 --reason "shorter pieces" --revert-after 10m',
        code=1,
        expects=(r"applied by 2 of 3", r"refused by 1", r"goes back by itself"),
    ),
    Step(
        "Another change, watched from a second terminal as it arrives:",
        "tars-settings watch stt-worker --count 1",
        expects=(r"silence_s",),
        heading="Watch it applied",
        beside='tars-settings push stt-worker silence_s=0.7 --reason "quick answers" --canary 25% --bake 2s --promote',
    ),
    Step(
        "It was tried on one worker of four, watched, and promoted to all. The router's change is still on trial:",
        "tars-settings status router",
        code=1,
        expects=(r"refuses router epoch", r"reverts in", r"not converged: router@hall"),
    ),
    Step(
        "What was there before?",
        "tars-settings history router",
        expects=(r"shorter pieces", r"long answers"),
        heading="Roll it back",
    ),
    Step(
        "Back to what the first epoch said. It is a push of the old value, signed like any other.",
        "tars-settings rollback router --to-epoch 1 --yes",
        expects=(r"100.*400", r"applied by 3 of 3"),
    ),
    Step(
        "Everybody is in step again:",
        "tars-settings status router",
        expects=(r"converged: 3 in step",),
    ),
    Step(
        "The key that encrypts secrets is a year old. A new one is added to the file that workers read; they take it "
        "up by themselves.",
        "tars-settings keys new k2 --secret",
        heading="Rotate a key",
    ),
    Step(
        "Then what is in force is encrypted anew, and the old key can go.",
        "tars-settings keys rotate-secrets k2",
        expects=(r"1 secret is encrypted under k2",),
    ),
    Step(
        "A backup is a file of signed envelopes, as good as a broker:",
        "tars-settings export --file robot.export",
        heading="Restore a wiped broker",
    ),
    Step(
        "The broker's disk dies, and an empty one takes its place. The workers fill it again by themselves; from a "
        "backup it is there at once, and what is older than what anybody holds does no harm.",
        "tars-settings import robot.export",
        happens="the broker is killed and comes back empty",
    ),
    Step(
        "All of it is back, and no worker was ever without a value:",
        "tars-settings status",
        expects=(r"converged: 10 in step",),
    ),
)
