"""The paper, rerunnable: its tables and figures as commands."""
