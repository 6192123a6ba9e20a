"""What Locust loads in the generator process; `python -m loadtest run` starts it and names the plan."""

import os
import sys
from pathlib import Path

from locust import events

from loadtest.errors import UsageError
from loadtest.journeys import users_of
from loadtest.plan import VARIABLE, Plan
from loadtest.recorder import Recorder

if VARIABLE not in os.environ:
    sys.exit(f"{VARIABLE} is not set: start the load test with `python -m loadtest run`")
plan = Plan.read(Path(os.environ[VARIABLE]))
try:
    globals().update(users_of(plan))  # Locust runs the user classes that it finds in this module
except UsageError as error:
    sys.exit(f"loadtest: {error}")
Recorder(Path(plan.recording)).attach(events)
